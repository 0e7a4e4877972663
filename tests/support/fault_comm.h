// A communicator that misbehaves on purpose.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "worker/comm/thread_comm.h"

namespace shardmax {

// What goes wrong, on which rank, and when: at the `call`-th call (from 1) of one operation, named by its counter.
//   Fault{.rank = 1, .operation = &CommStats::all_reduce, .call = 2, .status = …}   that call fails
//   Fault{.rank = 1, .operation = &CommStats::all_reduce, .call = 2, .delay = …}    that call begins late
struct Fault {
  int rank = 0;
  CommStats::Counter CommStats::*operation = &CommStats::all_gather;
  int64_t call = 1;
  absl::Status status;
  std::chrono::milliseconds delay{0};
};

// Passes every call on to `inner`, which it borrows, but for the fault. A call that fails loses this rank as a broken
// link would: peers get Unavailable, and every later call of this rank returns the fault's status.
class FaultComm final : public Communicator {
 public:
  FaultComm(ThreadCommunicator& inner, Fault fault) : inner_(inner), fault_(std::move(fault)) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const CommStats& stats() const override { return inner_.stats(); }

  absl::Status AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    return Call(&CommStats::all_gather, [&] { return inner_.AllGather(mine, all); });
  }
  absl::Status AllReduceSum(std::span<float> values) override {
    return Call(&CommStats::all_reduce, [&] { return inner_.AllReduceSum(values); });
  }
  absl::Status ReduceScatterSum(std::span<const float> all, std::span<float> mine) override {
    return Call(&CommStats::reduce_scatter, [&] { return inner_.ReduceScatterSum(all, mine); });
  }
  absl::Status Broadcast(std::span<std::byte> bytes, int root) override {
    return Call(&CommStats::broadcast, [&] { return inner_.Broadcast(bytes, root); });
  }
  absl::Status Barrier() override {
    return Call(&CommStats::barrier, [&] { return inner_.Barrier(); });
  }

 private:
  template <typename Inner>
  absl::Status Call(CommStats::Counter CommStats::*operation, const Inner& inner) {
    if (!broken_.ok()) return broken_;
    const bool due =
        operation == fault_.operation && rank() == fault_.rank && (stats().*operation).calls + 1 == fault_.call;
    if (!due) return inner();
    std::this_thread::sleep_for(fault_.delay);
    if (fault_.status.ok()) return inner();
    inner_.Abort();
    return broken_ = fault_.status;
  }

  ThreadCommunicator& inner_;
  const Fault fault_;
  absl::Status broken_;
};

}  // namespace shardmax
