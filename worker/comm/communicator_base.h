// What every transport shares: argument checks, counting, and an error that stays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "worker/comm/communicator.h"

namespace shardmax {

// Implements Communicator on top of five transport methods. A transport may rely on spans that fit each other, on
// 0 <= root < size(), and on not being called again after it returned an error.
class CommunicatorBase : public Communicator {
 public:
  int rank() const final { return rank_; }
  int size() const final { return size_; }
  const CommStats& stats() const final { return stats_; }

  absl::Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) final;
  absl::Status AllReduceSum(std::span<float> values) final;
  absl::Status ReduceScatterSum(std::span<const float> all, std::span<float> mine) final;
  absl::Status Broadcast(std::span<std::byte> bytes, int root) final;
  absl::Status Barrier() final;

 protected:
  // Requires 0 <= rank < size.
  CommunicatorBase(int rank, int size) : rank_(rank), size_(size) {}

  virtual absl::Status DoAllGather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;
  virtual absl::Status DoAllReduceSum(std::span<float> values) = 0;
  virtual absl::Status DoReduceScatterSum(std::span<const float> all, std::span<float> mine) = 0;
  virtual absl::Status DoBroadcast(std::span<std::byte> bytes, int root) = 0;
  virtual absl::Status DoBarrier() = 0;

  // Called once, with the error that broke this communicator, wherever it came from. Lets the transport tell the peers,
  // who would otherwise learn it from their deadline.
  virtual void OnBroken(const absl::Status& status) = 0;

  // Runs `call` unless the communicator is broken; counts it if it succeeds and keeps its error if not.
  absl::Status Run(CommStats::Counter& counter, size_t bytes, absl::FunctionRef<absl::Status()> call);

  CommStats stats_;

 private:
  const int rank_;
  const int size_;
  absl::Status broken_;
};

}  // namespace shardmax
