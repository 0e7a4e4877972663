// Ranks as threads of one process: for tests, and for a worker that runs alone.
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "worker/comm/communicator_base.h"

namespace shardmax {

namespace internal {
class ThreadGroup;
struct ThreadCall;
}  // namespace internal

// One rank of a group that shares memory. Each rank's communicator belongs to one thread; the group lives until the
// last one is destroyed.
//
// A collective succeeds on all ranks or fails on all ranks with one status. A rank whose communicator is destroyed or
// aborted before it has joined a collective makes that collective return Unavailable on the others, at once.
// Collectives that do not match (another operation, size or root) are InvalidArgument on all ranks. Sums are added in
// rank order.
class ThreadCommunicator final : public CommunicatorBase {
 public:
  ~ThreadCommunicator() override;

  // Leaves the group as a lost rank would: peers that wait for this rank, and later calls of this rank itself, return
  // Unavailable. Any thread may call.
  void Abort();

 private:
  friend std::vector<std::unique_ptr<ThreadCommunicator>> MakeThreadGroup(int size, std::chrono::milliseconds timeout);
  ThreadCommunicator(std::shared_ptr<internal::ThreadGroup> group, int rank, int size);

  absl::Status DoAllGather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  absl::Status DoAllReduceSum(std::span<float> values) override;
  absl::Status DoReduceScatterSum(std::span<const float> all, std::span<float> mine) override;
  absl::Status DoBroadcast(std::span<std::byte> bytes, int root) override;
  absl::Status DoBarrier() override;
  void OnBroken(const absl::Status& status) override;

  std::shared_ptr<internal::ThreadGroup> group_;
  std::vector<float> sum_;  // Of the last AllReduceSum.
};

// The communicators of a new group, by rank. Requires size >= 1. No wait for a peer is longer than `timeout`.
std::vector<std::unique_ptr<ThreadCommunicator>> MakeThreadGroup(int size, std::chrono::milliseconds timeout);

}  // namespace shardmax
