// Who calls what: the small messages that go between ranks before the data of a collective does.
#pragma once

#include <mpi.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace shardmax::internal {

enum class Operation : int32_t { kAllGather, kAllReduceSum, kReduceScatterSum, kBroadcast, kBarrier };

const char* NameOf(Operation operation);

// A collective as one rank calls it.
struct Call {
  Operation operation;
  uint64_t bytes = 0;
  int32_t root = 0;

  friend bool operator==(const Call&, const Call&) = default;
};

// Every rank sends each peer one notice per call, in order, and one when it fails or leaves. A peer is at most one call
// ahead of this rank, as it needs this rank's notice to get further.
//
// Not thread-safe. Must outlive the traffic: memory of the object stays in MPI's hands until MPI_Finalize unless Cancel
// was called.
class MpiRollCall {
 public:
  MpiRollCall(MPI_Comm comm, int rank, int size, std::chrono::milliseconds timeout);

  // Starts to listen. Call once, first.
  absl::Status Listen();

  // Announces this rank's next call and waits until every rank has announced the same. DeadlineExceeded naming the
  // ranks that are missing, Unavailable naming those that left, InvalidArgument if the calls differ, or the status with
  // which a peer failed.
  absl::Status Await(const Call& call, std::chrono::steady_clock::time_point deadline);

  // Reads what has come.
  absl::Status Poll();

  // The status with which a peer failed in the latest call or before it. A peer that failed in a later call has done
  // its part of this one.
  absl::Status PeerFailure() const;

  // For the case that every rank called but the data does not come, or that a peer says so. Tells the peers, listens to
  // them for a moment, and returns DeadlineExceeded naming the ranks that do not answer.
  absl::Status Stall(const Call& call);
  // Whether a peer has told so.
  bool PeerStalls() const;

  // Tells the peers that this rank failed with `status` in call number `call_number`, counted from 1. Never waits. Only
  // the first farewell is sent.
  void Fail(int64_t call_number, const absl::Status& status);
  // Tells the peers that this rank takes part in no further call. Never waits.
  void Leave();

  // Stops listening.
  void Cancel();

 private:
  enum class Kind : int32_t { kCall, kStall, kFail, kLeave };

  // A message on the wire.
  struct Notice {
    Kind kind = Kind::kCall;
    int32_t code = 0;  // kFail: the absl::StatusCode.
    Call call = {};
    int64_t number = 0;  // kCall, kFail: of the call, counts from 1.
    int32_t text_length = 0;
    std::array<char, 212> text = {};  // kFail: the message, cut.
  };

  struct Peer {
    Notice incoming;              // In MPI's hands.
    std::array<Notice, 2> calls;  // The notice of call number n, at n % 2.
    bool left = false;
    bool stalls = false;
    int64_t failed_call = 0;
    absl::Status failure;

    bool has_called(int64_t number) const { return calls[number % 2].number == number; }
  };

  absl::Status ListenTo(int peer);
  absl::Status Hear(int peer);
  absl::Status SendToAll(const Notice& notice, std::vector<MPI_Request>& requests);
  void SayFarewell(const Notice& notice);
  absl::Status CompareCalls() const;
  absl::Status MissingStatus(const Call& call) const;
  template <typename Predicate>
  std::string PeersWhere(const Predicate& predicate) const;

  const MPI_Comm comm_;
  const int rank_;
  const int size_;
  const std::chrono::milliseconds timeout_;
  int64_t number_ = 0;                 // Of this rank's latest call.
  std::vector<Peer> peers_;            // By rank; this rank's own holds its calls.
  std::vector<MPI_Request> receives_;  // By rank.
  std::vector<MPI_Request> sends_;     // Of outgoing_, by rank.
  std::vector<MPI_Request> farewell_sends_;
  Notice outgoing_;
  Notice farewell_;
  bool said_farewell_ = false;
};

}  // namespace shardmax::internal
