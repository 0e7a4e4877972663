// The devices of this machine, and whether one can do what is asked of it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/engine.h"

namespace shardmax::cuda {

struct DeviceInfo {
  int device = 0;
  std::string name;
  int compute_capability = 0;  // 90 for 9.0
  int64_t l2_bytes = 0;
  int64_t free_bytes = 0;  // When it was asked.
  int64_t total_bytes = 0;
};

// Devices that this process sees; 0 without any. FailedPrecondition: there is no driver, or one that is too old.
absl::StatusOr<int> CountDevices();

// The device of a rank, which is `local_rank` of `local_ranks` on its machine: a device for each. A launcher that shows
// each rank one device of its own (CUDA_VISIBLE_DEVICES) is served too. FailedPrecondition: fewer devices than ranks.
absl::StatusOr<int> DeviceOfRank(int local_rank, int local_ranks);

// Makes `device` current for the calling thread. FailedPrecondition: its compute capability is below 8.0, which has no
// bfloat16 and no kernels in this build.
absl::StatusOr<DeviceInfo> UseDevice(int device);

// ResourceExhausted, with the bytes needed and the most classes that would fit, unless the shard and a batch of
// options.batch_rows fit into what is free.
absl::Status CheckFits(const EngineOptions& options, const DeviceInfo& info);

}  // namespace shardmax::cuda
