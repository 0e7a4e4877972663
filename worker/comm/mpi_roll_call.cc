#include "worker/comm/mpi_roll_call.h"

#include <algorithm>

#include "worker/base/status.h"
#include "worker/comm/mpi_util.h"
#include "worker/comm/pacer.h"

namespace shardmax::internal {
namespace {

constexpr int kTag = 1;

// How long a rank stays on the core for a peer that is about to call.
constexpr std::chrono::microseconds kBusyWait{50};

// How long ranks that stall listen to each other.
constexpr std::chrono::milliseconds kGrace{500};

}  // namespace

const char* NameOf(Operation operation) {
  switch (operation) {
    case Operation::kAllGather:
      return "AllGather";
    case Operation::kAllReduceSum:
      return "AllReduceSum";
    case Operation::kReduceScatterSum:
      return "ReduceScatterSum";
    case Operation::kBroadcast:
      return "Broadcast";
    case Operation::kBarrier:
      return "Barrier";
  }
  return "unknown operation";
}

MpiRollCall::MpiRollCall(MPI_Comm comm, int rank, int size, std::chrono::milliseconds timeout)
    : comm_(comm),
      rank_(rank),
      size_(size),
      timeout_(timeout),
      peers_(size),
      receives_(size, MPI_REQUEST_NULL),
      sends_(size, MPI_REQUEST_NULL),
      farewell_sends_(size, MPI_REQUEST_NULL) {}

absl::Status MpiRollCall::Listen() {
  for (int peer = 0; peer < size_; ++peer) {
    if (peer != rank_) SHARDMAX_RETURN_IF_ERROR(ListenTo(peer));
  }
  return absl::OkStatus();
}

absl::Status MpiRollCall::ListenTo(int peer) {
  SHARDMAX_MPI(rank_, MPI_Irecv, &peers_[peer].incoming, sizeof(Notice), MPI_BYTE, peer, kTag, comm_, &receives_[peer]);
  return absl::OkStatus();
}

absl::Status MpiRollCall::SendToAll(const Notice& notice, std::vector<MPI_Request>& requests) {
  // Each rank begins with its successor, so that they do not all send to the same peer at the same time.
  for (int step = 1; step < size_; ++step) {
    const int peer = (rank_ + step) % size_;
    if (peers_[peer].left) continue;
    SHARDMAX_MPI(rank_, MPI_Isend, &notice, sizeof(Notice), MPI_BYTE, peer, kTag, comm_, &requests[peer]);
  }
  return absl::OkStatus();
}

absl::Status MpiRollCall::Hear(int peer) {
  Peer& p = peers_[peer];
  const Notice& notice = p.incoming;
  switch (notice.kind) {
    case Kind::kCall:
      p.calls[notice.number % 2] = notice;
      break;
    case Kind::kStall:
      p.stalls = true;
      break;
    case Kind::kFail:
      p.failed_call = notice.number;
      p.failure = absl::Status(static_cast<absl::StatusCode>(notice.code),
                               fmt::format("{}", std::string(notice.text.data(), notice.text_length)));
      return absl::OkStatus();
    case Kind::kLeave:
      p.left = true;
      return absl::OkStatus();
  }
  return ListenTo(peer);
}

absl::Status MpiRollCall::Poll() {
  // A notice that is heard makes room for the next, which may be there already.
  for (bool heard = true; heard;) {
    heard = false;
    for (int peer = 0; peer < size_; ++peer) {
      if (receives_[peer] == MPI_REQUEST_NULL) continue;
      int done = 0;
      SHARDMAX_MPI(rank_, MPI_Test, &receives_[peer], &done, MPI_STATUS_IGNORE);
      if (done == 0) continue;
      heard = true;
      SHARDMAX_RETURN_IF_ERROR(Hear(peer));
    }
  }
  return absl::OkStatus();
}

absl::Status MpiRollCall::PeerFailure() const {
  for (const Peer& peer : peers_) {
    if (peer.failed_call <= number_) SHARDMAX_RETURN_IF_ERROR(peer.failure);
  }
  return absl::OkStatus();
}

template <typename Predicate>
std::string MpiRollCall::PeersWhere(const Predicate& predicate) const {
  std::string list;
  for (int peer = 0; peer < size_; ++peer) {
    if (peer != rank_ && predicate(peers_[peer])) list += (list.empty() ? "" : ", ") + std::to_string(peer);
  }
  return list;
}

absl::Status MpiRollCall::CompareCalls() const {
  const Call& first = peers_[0].calls[number_ % 2].call;
  for (int peer = 1; peer < size_; ++peer) {
    const Call& call = peers_[peer].calls[number_ % 2].call;
    if (call == first) continue;
    return InvalidArgument("rank 0 calls {} of {} bytes, root {}, but rank {} calls {} of {} bytes, root {}",
                           NameOf(first.operation), first.bytes, first.root, peer, NameOf(call.operation), call.bytes,
                           call.root);
  }
  return absl::OkStatus();
}

absl::Status MpiRollCall::Await(const Call& call, std::chrono::steady_clock::time_point deadline) {
  outgoing_ = {.call = call, .number = ++number_};
  peers_[rank_].calls[number_ % 2] = outgoing_;
  SHARDMAX_RETURN_IF_ERROR(SendToAll(outgoing_, sends_));

  const auto missing = [this](const Peer& p) { return !p.has_called(number_); };
  const auto lost = [this](const Peer& p) { return p.left && !p.has_called(number_); };
  for (Pacer pacer(kBusyWait);; pacer.Pause()) {
    SHARDMAX_RETURN_IF_ERROR(Poll());
    SHARDMAX_RETURN_IF_ERROR(PeerFailure());
    if (std::none_of(peers_.begin(), peers_.end(), missing)) {
      int sent = 0;
      SHARDMAX_MPI(rank_, MPI_Testall, size_, sends_.data(), &sent, MPI_STATUSES_IGNORE);
      if (sent != 0) return CompareCalls();
    }
    if (PeerStalls()) return Stall(call);
    if (const std::string ranks = PeersWhere(lost); !ranks.empty()) {
      return Error(absl::StatusCode::kUnavailable, "{}: lost rank {}", NameOf(call.operation), ranks);
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      return Error(absl::StatusCode::kDeadlineExceeded, "{}: no call within {} ms from rank {}", NameOf(call.operation),
                   timeout_.count(), PeersWhere(missing));
    }
  }
}

bool MpiRollCall::PeerStalls() const {
  return std::any_of(peers_.begin(), peers_.end(), [](const Peer& p) { return p.stalls; });
}

absl::Status MpiRollCall::Stall(const Call& call) {
  SayFarewell({.kind = Kind::kStall});
  const auto silent = [this](const Peer& p) {
    return !p.stalls && !p.left && p.failure.ok() && !p.has_called(number_ + 1);
  };
  for (Pacer pacer(kBusyWait); pacer.waited() < kGrace && !PeersWhere(silent).empty(); pacer.Pause()) {
    Poll().IgnoreError();
  }
  const std::string ranks = PeersWhere(silent);
  return Error(absl::StatusCode::kDeadlineExceeded,
               "{}: the data of this call or the one before did not come within {} ms; {}", NameOf(call.operation),
               timeout_.count(),
               ranks.empty() ? std::string("every rank still answers") : "no answer from rank " + ranks);
}

void MpiRollCall::SayFarewell(const Notice& notice) {
  if (said_farewell_) return;
  said_farewell_ = true;
  farewell_ = notice;
  // Nobody to tell if this fails too: the peers have deadlines.
  SendToAll(farewell_, farewell_sends_).IgnoreError();
}

void MpiRollCall::Fail(int64_t call_number, const absl::Status& status) {
  Notice notice = {.kind = Kind::kFail, .code = static_cast<int32_t>(status.code()), .number = call_number};
  const std::string text = Message(status);
  notice.text_length = static_cast<int32_t>(std::min(text.size(), notice.text.size()));
  std::copy_n(text.begin(), notice.text_length, notice.text.begin());
  SayFarewell(notice);
}

void MpiRollCall::Leave() {
  SayFarewell({.kind = Kind::kLeave});
}

void MpiRollCall::Cancel() {
  for (MPI_Request& request : receives_) {
    if (request == MPI_REQUEST_NULL) continue;
    MPI_Cancel(&request);
    MPI_Wait(&request, MPI_STATUS_IGNORE);  // Local: the request is complete or cancelled.
  }
}

}  // namespace shardmax::internal
