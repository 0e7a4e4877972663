// Sums over the lanes of a warp and the warps of a block.
#pragma once

#include <cuda_runtime.h>

namespace shardmax::cuda {

constexpr unsigned kAllLanes = 0xffffffffU;
constexpr int kWarpSize = 32;

struct Add {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Larger {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

// The result of all lanes, on every lane, the same bits on each. All 32 lanes call.
template <typename T, typename Operation>
__device__ inline T WarpReduce(T value, Operation operation) {
#pragma unroll
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
    value = operation(value, __shfl_xor_sync(kAllLanes, value, lanes));
  }
  return value;
}

// The result of all threads, on every thread. All kThreads threads of a block of one dimension call, each call with a
// `warps` of its own in shared memory.
template <int kThreads, typename T, typename Operation>
__device__ inline T BlockReduce(T value, Operation operation, T (&warps)[kThreads / kWarpSize]) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  value = WarpReduce(value, operation);
  if (lane == 0) warps[warp] = value;
  __syncthreads();
  T result = warps[0];
#pragma unroll
  for (int i = 1; i < kThreads / kWarpSize; ++i) result = operation(result, warps[i]);
  return result;
}

}  // namespace shardmax::cuda
