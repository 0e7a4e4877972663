#include "worker/comm/communicator_base.h"

#include <chrono>

#include "worker/base/status.h"

namespace shardmax {

absl::Status CommunicatorBase::Run(CommStats::Counter& counter, size_t bytes, absl::FunctionRef<absl::Status()> call) {
  if (!broken_.ok()) return broken_;
  const auto start = std::chrono::steady_clock::now();
  if (absl::Status status = call(); !status.ok()) {
    broken_ = status;
    OnBroken(status);
    return status;
  }
  counter.calls += 1;
  counter.bytes += static_cast<int64_t>(bytes);
  counter.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return absl::OkStatus();
}

absl::Status CommunicatorBase::AllGather(std::span<const std::byte> mine, std::span<std::byte> all) {
  return Run(stats_.all_gather, mine.size(), [&]() -> absl::Status {
    if (all.size() != mine.size() * static_cast<size_t>(size_)) {
      return InvalidArgument("AllGather on rank {}: `all` has {} bytes, must have {} x {}", rank_, all.size(), size_,
                             mine.size());
    }
    return DoAllGather(mine, all);
  });
}

absl::Status CommunicatorBase::AllReduceSum(std::span<float> values) {
  return Run(stats_.all_reduce, values.size_bytes(), [&] { return DoAllReduceSum(values); });
}

absl::Status CommunicatorBase::ReduceScatterSum(std::span<const float> all, std::span<float> mine) {
  return Run(stats_.reduce_scatter, all.size_bytes(), [&]() -> absl::Status {
    if (all.size() != mine.size() * static_cast<size_t>(size_)) {
      return InvalidArgument("ReduceScatterSum on rank {}: `all` has {} floats, must have {} x {}", rank_, all.size(),
                             size_, mine.size());
    }
    return DoReduceScatterSum(all, mine);
  });
}

absl::Status CommunicatorBase::Broadcast(std::span<std::byte> bytes, int root) {
  return Run(stats_.broadcast, bytes.size(), [&]() -> absl::Status {
    if (root < 0 || root >= size_) {
      return InvalidArgument("Broadcast on rank {}: root is {}, must be 0 to {}", rank_, root, size_ - 1);
    }
    return DoBroadcast(bytes, root);
  });
}

absl::Status CommunicatorBase::Barrier() {
  return Run(stats_.barrier, 0, [&] { return DoBarrier(); });
}

}  // namespace shardmax
