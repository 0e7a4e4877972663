#include "worker/comm/thread_comm.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <span>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "worker/base/status.h"
#include "worker/comm/rank_order_sum.h"

namespace shardmax {
namespace {

absl::Status Aborted(const char* operation, int rank) {
  return Error(absl::StatusCode::kUnavailable, "{}: rank {} aborted", operation, rank);
}

}  // namespace

namespace internal {

// What a rank brings to a collective. Calls of all ranks must be equal but for `data`.
struct ThreadCall {
  const char* operation = "";
  size_t bytes = 0;
  int root = 0;
  const std::byte* data = nullptr;

  std::span<const float> floats(size_t first, size_t count) const {
    return {reinterpret_cast<const float*>(data) + first, count};
  }
};

// The meeting point. Call k of a rank is its k-th collective, counted from 1.
//
// A collective has two phases: every rank posts its call, then every rank reads what it needs from the memory of its
// peers. The second ends when all have read, so that no rank leaves while its memory is in use. Only the first depends
// on other people's code and has a deadline; whether it succeeded is decided once, under the lock.
class ThreadGroup {
 public:
  ThreadGroup(int size, std::chrono::milliseconds timeout) : timeout_(timeout), ranks_(size) {}

  // `read(calls)` runs without the lock, when the calls of all ranks are there.
  absl::Status Collective(int rank, const ThreadCall& call, absl::FunctionRef<void(std::span<const ThreadCall>)> read);

  // Makes every later wait of any rank return `status`, unless the group has failed before.
  void Fail(const absl::Status& status);

  void Leave(int rank);

 private:
  struct Rank {
    ThreadCall call;
    int64_t posted = 0;  // The last call that this rank posted.
    int64_t read = 0;    // The last call whose data it has read.
    bool left = false;
    std::vector<ThreadCall> calls;  // Of all ranks, while it reads. Its own.
  };

  absl::Status AwaitPosts(std::unique_lock<std::mutex>& lock, int rank, int64_t k, const char* operation);
  template <typename Predicate>
  std::string RanksWhere(const Predicate& predicate) const;
  absl::Status CheckSameCall() const;

  const std::chrono::milliseconds timeout_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Rank> ranks_;
  absl::Status failure_;  // The first failure: what every later wait returns.
};

template <typename Predicate>
std::string ThreadGroup::RanksWhere(const Predicate& predicate) const {
  std::string list;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    if (predicate(ranks_[r])) list += (list.empty() ? "" : ", ") + std::to_string(r);
  }
  return list;
}

absl::Status ThreadGroup::AwaitPosts(std::unique_lock<std::mutex>& lock, int rank, int64_t k, const char* operation) {
  const auto missing = [k](const Rank& r) { return r.posted < k; };
  const auto lost = [k](const Rank& r) { return r.posted < k && r.left; };
  const auto deadline = std::chrono::steady_clock::now() + timeout_;
  bool in_time = true;
  while (std::any_of(ranks_.begin(), ranks_.end(), missing)) {
    if (!failure_.ok()) return failure_;
    if (ranks_[rank].left) {
      failure_ = Aborted(operation, rank);
    } else if (std::any_of(ranks_.begin(), ranks_.end(), lost)) {
      failure_ = Error(absl::StatusCode::kUnavailable, "{}: lost rank {}", operation, RanksWhere(lost));
    } else if (!in_time) {
      failure_ = Error(absl::StatusCode::kDeadlineExceeded, "{}: no call within {} ms from rank {}", operation,
                       timeout_.count(), RanksWhere(missing));
    } else {
      in_time = changed_.wait_until(lock, deadline) == std::cv_status::no_timeout;
      continue;
    }
    changed_.notify_all();
  }
  return absl::OkStatus();
}

absl::Status ThreadGroup::CheckSameCall() const {
  const ThreadCall& first = ranks_[0].call;
  for (size_t r = 1; r < ranks_.size(); ++r) {
    const ThreadCall& call = ranks_[r].call;
    if (std::strcmp(call.operation, first.operation) != 0 || call.bytes != first.bytes || call.root != first.root) {
      return InvalidArgument("rank 0 calls {} of {} bytes, root {}, but rank {} calls {} of {} bytes, root {}",
                             first.operation, first.bytes, first.root, r, call.operation, call.bytes, call.root);
    }
  }
  return absl::OkStatus();
}

absl::Status ThreadGroup::Collective(int rank, const ThreadCall& call,
                                     absl::FunctionRef<void(std::span<const ThreadCall>)> read) {
  std::unique_lock<std::mutex> lock(mutex_);
  Rank& me = ranks_[rank];
  if (me.left) return Aborted(call.operation, rank);
  if (!failure_.ok()) return failure_;
  const int64_t k = ++me.posted;
  me.call = call;
  changed_.notify_all();
  SHARDMAX_RETURN_IF_ERROR(AwaitPosts(lock, rank, k, call.operation));

  const absl::Status same = CheckSameCall();
  if (same.ok()) {
    me.calls.clear();
    for (const Rank& r : ranks_) me.calls.push_back(r.call);
    lock.unlock();
    read(me.calls);
    lock.lock();
  } else {
    failure_ = same;
  }
  me.read = k;
  changed_.notify_all();
  changed_.wait(lock,
                [&] { return std::all_of(ranks_.begin(), ranks_.end(), [k](const Rank& r) { return r.read >= k; }); });
  return same;
}

void ThreadGroup::Fail(const absl::Status& status) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (failure_.ok()) failure_ = status;
  changed_.notify_all();
}

void ThreadGroup::Leave(int rank) {
  std::lock_guard<std::mutex> lock(mutex_);
  ranks_[rank].left = true;
  changed_.notify_all();
}

}  // namespace internal

using internal::ThreadCall;

ThreadCommunicator::ThreadCommunicator(std::shared_ptr<internal::ThreadGroup> group, int rank, int size)
    : CommunicatorBase(rank, size), group_(std::move(group)) {}

ThreadCommunicator::~ThreadCommunicator() {
  Abort();
}

void ThreadCommunicator::Abort() {
  group_->Leave(rank());
}

absl::Status ThreadCommunicator::DoAllGather(std::span<const std::byte> mine, std::span<std::byte> all) {
  const ThreadCall call = {.operation = "AllGather", .bytes = mine.size(), .data = mine.data()};
  return group_->Collective(rank(), call, [&](std::span<const ThreadCall> calls) {
    for (int r = 0; r < size(); ++r) std::copy_n(calls[r].data, mine.size(), all.begin() + r * mine.size());
  });
}

absl::Status ThreadCommunicator::DoAllReduceSum(std::span<float> values) {
  const ThreadCall call = {
      .operation = "AllReduceSum", .bytes = values.size_bytes(), .data = std::as_bytes(values).data()};
  sum_.resize(values.size());
  SHARDMAX_RETURN_IF_ERROR(group_->Collective(rank(), call, [&](std::span<const ThreadCall> calls) {
    SumInRankOrder(
        size(), [&](int r) { return calls[r].floats(0, values.size()); }, sum_);
  }));
  // Only now: until the collective is over, peers read `values`.
  std::copy(sum_.begin(), sum_.end(), values.begin());
  return absl::OkStatus();
}

absl::Status ThreadCommunicator::DoReduceScatterSum(std::span<const float> all, std::span<float> mine) {
  const ThreadCall call = {
      .operation = "ReduceScatterSum", .bytes = all.size_bytes(), .data = std::as_bytes(all).data()};
  return group_->Collective(rank(), call, [&](std::span<const ThreadCall> calls) {
    SumInRankOrder(
        size(), [&](int r) { return calls[r].floats(rank() * mine.size(), mine.size()); }, mine);
  });
}

absl::Status ThreadCommunicator::DoBroadcast(std::span<std::byte> bytes, int root) {
  const ThreadCall call = {.operation = "Broadcast", .bytes = bytes.size(), .root = root, .data = bytes.data()};
  return group_->Collective(rank(), call, [&](std::span<const ThreadCall> calls) {
    if (rank() != root) std::copy_n(calls[root].data, bytes.size(), bytes.begin());
  });
}

absl::Status ThreadCommunicator::DoBarrier() {
  return group_->Collective(rank(), {.operation = "Barrier"}, [](std::span<const ThreadCall>) {});
}

void ThreadCommunicator::OnBroken(const absl::Status& status) {
  group_->Fail(status);
}

std::vector<std::unique_ptr<ThreadCommunicator>> MakeThreadGroup(int size, std::chrono::milliseconds timeout) {
  auto group = std::make_shared<internal::ThreadGroup>(size, timeout);
  std::vector<std::unique_ptr<ThreadCommunicator>> ranks;
  ranks.reserve(size);
  for (int rank = 0; rank < size; ++rank) {
    ranks.push_back(std::unique_ptr<ThreadCommunicator>(new ThreadCommunicator(group, rank, size)));
  }
  return ranks;
}

}  // namespace shardmax
