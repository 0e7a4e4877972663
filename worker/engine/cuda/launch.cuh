// Starts kernels in a form that host compilers read too: <<<>>> is nvcc's alone.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace shardmax::cuda {

template <typename Kernel, typename... Arguments>
cudaError_t Launch(Kernel kernel, dim3 blocks, unsigned threads, cudaStream_t stream, const Arguments&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = dim3(threads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

inline unsigned BlocksFor(int64_t items, int64_t items_of_block) {
  return static_cast<unsigned>((items + items_of_block - 1) / items_of_block);
}

}  // namespace shardmax::cuda
