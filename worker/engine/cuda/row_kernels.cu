// Kernels on rows of weights and features.
#include "worker/engine/cuda/kernels.h"
#include "worker/engine/cuda/launch.cuh"
#include "worker/engine/cuda/vector_access.cuh"
#include "worker/engine/cuda/warp.cuh"
#include "worker/engine/inverse_length.h"

namespace shardmax::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsOfBlock = kThreads / kWarpSize;  // A warp a row.

__device__ inline int RowOfWarp() {
  return static_cast<int>(blockIdx.x) * kRowsOfBlock + static_cast<int>(threadIdx.x) / kWarpSize;
}
__device__ inline int FirstColumn() {
  return static_cast<int>(threadIdx.x) % kWarpSize * 4;
}
constexpr int kColumnStep = kWarpSize * 4;

__global__ void __launch_bounds__(kThreads) NormKernel(NormArgs args) {
  const int k = RowOfWarp();
  if (k >= args.count) return;
  double square = 0;
  for (int64_t i = FirstColumn(); i < args.stride; i += kColumnStep) {
    const float4 w = Load4(args.weights + k * args.stride + i);
    square += SumOfSquares(w);
    if (args.bfloat16_weights != nullptr) Store4(args.bfloat16_weights + k * args.stride + i, w);
  }
  square = WarpReduce(square, Add());
  if (FirstColumn() == 0) args.inverse_norms[k] = static_cast<float>(InverseLength(square));
}

__global__ void __launch_bounds__(kThreads) Bfloat16Kernel(const float* from, __nv_bfloat16* to, int64_t size) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 4;
  if (i < size) Store4(to + i, Load4(from + i));
}

__global__ void __launch_bounds__(kThreads) LabelKernel(LabelArgs args) {
  const int b = RowOfWarp();
  if (b >= args.rows) return;
  const int k = args.labels[b] - args.first_class;
  const bool is_owned = args.labels[b] >= 0 && k >= 0 && k < args.classes;
  double dot = 0;
  double square = 0;
  if (is_owned) {
    for (int64_t i = FirstColumn(); i < args.stride; i += kColumnStep) {
      const float4 x = Load4(args.features + b * args.stride + i);
      const float4 w = Load4(args.weights + k * args.stride + i);
      dot += static_cast<double>(x.x) * w.x + static_cast<double>(x.y) * w.y + static_cast<double>(x.z) * w.z +
             static_cast<double>(x.w) * w.w;
      square += SumOfSquares(w);
    }
  }
  dot = WarpReduce(dot, Add());
  square = WarpReduce(square, Add());
  if (FirstColumn() == 0) args.cosines[b] = is_owned ? static_cast<float>(dot * InverseLength(square)) : 0;
}

}  // namespace

cudaError_t LaunchNorms(const NormArgs& args, cudaStream_t stream) {
  return Launch(NormKernel, BlocksFor(args.count, kRowsOfBlock), kThreads, stream, args);
}

cudaError_t LaunchToBfloat16(const float* from, __nv_bfloat16* to, int64_t size, cudaStream_t stream) {
  return Launch(Bfloat16Kernel, BlocksFor(size, int64_t{4} * kThreads), kThreads, stream, from, to, size);
}

cudaError_t LaunchLabelCosines(const LabelArgs& args, cudaStream_t stream) {
  return Launch(LabelKernel, BlocksFor(args.rows, kRowsOfBlock), kThreads, stream, args);
}

}  // namespace shardmax::cuda
