// Four neighbouring elements at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstring>

namespace shardmax::cuda {

// `from` is aligned to 16 bytes.
__device__ inline float4 Load4(const float* from) {
  return *reinterpret_cast<const float4*>(from);
}
__device__ inline void Store4(float* to, const float4& values) {
  *reinterpret_cast<float4*>(to) = values;
}
// `to` is aligned to 8 bytes.
__device__ inline void Store4(__nv_bfloat16* to, const float4& values) {
  const __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(values.x, values.y),
                                   __floats2bfloat162_rn(values.z, values.w)};
  uint2 bits;
  memcpy(&bits, pairs, sizeof(bits));
  *reinterpret_cast<uint2*>(to) = bits;
}

__device__ inline double SumOfSquares(const float4& v) {
  return static_cast<double>(v.x) * v.x + static_cast<double>(v.y) * v.y + static_cast<double>(v.z) * v.z +
         static_cast<double>(v.w) * v.w;
}

}  // namespace shardmax::cuda
