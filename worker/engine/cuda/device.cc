#include "worker/engine/cuda/device.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>

#include "worker/base/cuda_status.h"
#include "worker/base/status.h"
#include "worker/engine/cuda/device_plan.h"

namespace shardmax::cuda {
namespace {

constexpr int kMinComputeCapability = 80;
// What stays for the context's own needs and for the holes between allocations.
constexpr int64_t kReserveBytes = int64_t{64} << 20;

absl::Status NoDriver(cudaError_t error) {
  return Error(
      absl::StatusCode::kFailedPrecondition,
      "no usable NVIDIA driver on this machine ({}): install one for CUDA {}.{} or newer, or use --backend=cpu",
      cudaGetErrorString(error), CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
}

}  // namespace

absl::StatusOr<int> CountDevices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice) return 0;
  if (error != cudaSuccess) return NoDriver(error);
  return count;
}

absl::StatusOr<int> DeviceOfRank(int local_rank, int local_ranks) {
  SHARDMAX_ASSIGN_OR_RETURN(const int devices, CountDevices());
  if (devices >= local_ranks) return local_rank;
  if (devices == 1 && std::getenv("CUDA_VISIBLE_DEVICES") != nullptr) return 0;
  if (devices == 0) {
    return Error(absl::StatusCode::kFailedPrecondition,
                 "the NVIDIA driver shows no GPU to this process: see nvidia-smi and CUDA_VISIBLE_DEVICES, or use "
                 "--backend=cpu");
  }
  return Error(absl::StatusCode::kFailedPrecondition,
               "{} ranks on this machine, but {} GPUs: start at most a rank a GPU (mpirun --map-by ppr:{}:node)",
               local_ranks, devices, devices);
}

absl::StatusOr<DeviceInfo> UseDevice(int device) {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) return NoDriver(error);
  cudaDeviceProp properties;
  SHARDMAX_CUDA(cudaGetDeviceProperties, &properties, device);
  DeviceInfo info = {.device = device,
                     .name = properties.name,
                     .compute_capability = properties.major * 10 + properties.minor,
                     .l2_bytes = properties.l2CacheSize};
  if (info.compute_capability < kMinComputeCapability) {
    return Error(absl::StatusCode::kFailedPrecondition,
                 "GPU {} ({}) has compute capability {}.{}: bfloat16 products and this build's kernels need 8.0 or "
                 "higher; use --backend=cpu",
                 device, info.name, properties.major, properties.minor);
  }
  SHARDMAX_CUDA(cudaSetDevice, device);
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  SHARDMAX_CUDA(cudaMemGetInfo, &free_bytes, &total_bytes);
  info.free_bytes = static_cast<int64_t>(free_bytes);
  info.total_bytes = static_cast<int64_t>(total_bytes);
  return info;
}

absl::Status CheckFits(const EngineOptions& options, const DeviceInfo& info) {
  const int64_t rows = std::max<int64_t>(1, options.batch_rows);
  const int64_t usable = std::max<int64_t>(0, info.free_bytes - std::min(kReserveBytes, info.total_bytes / 16));
  const int64_t needed = PlanDevice(options, rows, info.l2_bytes).total_bytes();
  if (needed <= usable) return absl::OkStatus();
  return Error(absl::StatusCode::kResourceExhausted,
               "a shard of {} classes x {} with batches of {} rows needs {} bytes of GPU {} ({}), {} of its {} are "
               "usable: at most {} classes a rank fit; use more ranks",
               options.shard.count, options.dim, rows, needed, info.device, info.name, usable, info.total_bytes,
               LargestShard(options, rows, info.l2_bytes, usable));
}

}  // namespace shardmax::cuda
