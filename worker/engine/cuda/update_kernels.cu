// Kernels of the backward pass: probabilities to gradients, and gradients to weights.
#include "worker/engine/cuda/kernels.h"
#include "worker/engine/cuda/launch.cuh"
#include "worker/engine/cuda/vector_access.cuh"
#include "worker/engine/cuda/warp.cuh"
#include "worker/engine/inverse_length.h"

namespace shardmax::cuda {
namespace {

using Ops = ScalarOps<float>;

constexpr int kThreads = 256;
constexpr int kClassesOfBlock = kThreads / kWarpSize;  // A warp a class in UpdateKernel.

// A thread four classes of a row.
__global__ void __launch_bounds__(kThreads) GradientKernel(GradientArgs args) {
  const Ops ops;
  const Tile& tile = args.tile;
  const int row = static_cast<int>(blockIdx.x);
  const int column = (static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x)) * 4;
  if (column >= tile.count) return;
  const ClassLogitScale scale = args.step->scale;
  const float shift = args.shifts[row];
  const ShiftedLogit<float> shifted = {args.thresholds[row], static_cast<float>(scale.plain_slope), -shift,
                                       static_cast<float>(scale.support_vector_slope),
                                       static_cast<float>(scale.support_vector_offset - static_cast<double>(shift))};
  const float row_scale = args.row_scales[row];
  const int label_column = tile.labels[row] - tile.first_global_class;

  const float4 products = Load4(tile.products + row * tile.stride + column);
  const float4 inverse_norms = Load4(tile.inverse_norms + tile.first + column);
  const float p[4] = {products.x, products.y, products.z, products.w};
  const float n[4] = {inverse_norms.x, inverse_norms.y, inverse_norms.z, inverse_norms.w};
  float gradients[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float gradient = column + j == label_column ? args.label_gradients[row]
                                                      : ClassCosineGradient(ops, shifted, row_scale, p[j] * n[j]);
    gradients[j] = column + j < tile.count ? gradient * n[j] : 0;
  }
  const float4 values = make_float4(gradients[0], gradients[1], gradients[2], gradients[3]);
  const int64_t at = row * tile.stride + column;
  if (args.bfloat16_gradients != nullptr) {
    Store4(args.bfloat16_gradients + at, values);
  } else {
    Store4(tile.products + at, values);
  }
}

enum class Rule { kSgd, kMomentum, kNesterov, kAdamW };

// The optimizer's step on one weight.
template <Rule kRule>
struct Updater {
  SgdConstants<Ops> constants;

  __device__ explicit Updater(const UpdateRule& rule) : constants(Ops(), rule) {}
  __device__ float operator()(float weight, float gradient, float& first, float& /*second*/) const {
    if constexpr (kRule == Rule::kSgd) {
      return SgdUpdate(Ops(), constants, weight, gradient);
    } else {
      return SgdMomentumUpdate<kRule == Rule::kNesterov>(Ops(), constants, weight, gradient, first);
    }
  }
};
template <>
struct Updater<Rule::kAdamW> {
  AdamWConstants<Ops> constants;

  __device__ explicit Updater(const UpdateRule& rule) : constants(Ops(), rule) {}
  __device__ float operator()(float weight, float gradient, float& first, float& second) const {
    return AdamWUpdate(Ops(), constants, weight, gradient, first, second);
  }
};

// A warp a class. With g = dloss/dŵ / ‖w‖ the gradient is g - (g · w / ‖w‖) w / ‖w‖.
template <Rule kRule>
__global__ void __launch_bounds__(kThreads) UpdateKernel(UpdateArgs args) {
  const int k = static_cast<int>(blockIdx.x) * kClassesOfBlock + static_cast<int>(threadIdx.x) / kWarpSize;
  if (k >= args.count || args.step->go == 0) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t row = k * args.stride;

  double dot = 0;
  for (int64_t i = lane * 4; i < args.stride; i += kWarpSize * 4) {
    const float4 g = Load4(args.gradients + row + i);
    const float4 w = Load4(args.weights + row + i);
    dot += static_cast<double>(g.x) * w.x + static_cast<double>(g.y) * w.y + static_cast<double>(g.z) * w.z +
           static_cast<double>(g.w) * w.w;
  }
  const float inverse_norm = args.inverse_norms[k];
  const auto along = static_cast<float>(WarpReduce(dot, Add()) * inverse_norm);

  const Updater<kRule> update(args.step->rule);
  double square = 0;
  for (int64_t i = lane * 4; i < args.stride; i += kWarpSize * 4) {
    const float4 zero = make_float4(0, 0, 0, 0);
    const float4 g = Load4(args.gradients + row + i);
    float4 w = Load4(args.weights + row + i);
    float4 first = kRule != Rule::kSgd ? Load4(args.first_state + row + i) : zero;
    float4 second = kRule == Rule::kAdamW ? Load4(args.second_state + row + i) : zero;
    w.x = update(w.x, g.x - along * (w.x * inverse_norm), first.x, second.x);
    w.y = update(w.y, g.y - along * (w.y * inverse_norm), first.y, second.y);
    w.z = update(w.z, g.z - along * (w.z * inverse_norm), first.z, second.z);
    w.w = update(w.w, g.w - along * (w.w * inverse_norm), first.w, second.w);
    Store4(args.weights + row + i, w);
    if constexpr (kRule != Rule::kSgd) Store4(args.first_state + row + i, first);
    if constexpr (kRule == Rule::kAdamW) Store4(args.second_state + row + i, second);
    if (args.bfloat16_weights != nullptr) Store4(args.bfloat16_weights + row + i, w);
    square += SumOfSquares(w);
  }
  square = WarpReduce(square, Add());
  __syncwarp();  // All lanes have read the inverse norm that is replaced now; shuffles do not order memory.
  if (lane == 0) args.inverse_norms[k] = static_cast<float>(InverseLength(square));
}

}  // namespace

cudaError_t LaunchGradients(const GradientArgs& args, cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>(args.tile.rows), BlocksFor(args.tile.count, int64_t{4} * kThreads));
  return Launch(GradientKernel, blocks, kThreads, stream, args);
}

cudaError_t LaunchUpdate(const UpdateArgs& args, const OptimizerParams& params, cudaStream_t stream) {
  const unsigned blocks = BlocksFor(args.count, kClassesOfBlock);
  if (params.kind == OptimizerKind::kAdamW) return Launch(UpdateKernel<Rule::kAdamW>, blocks, kThreads, stream, args);
  if (params.momentum == 0) return Launch(UpdateKernel<Rule::kSgd>, blocks, kThreads, stream, args);
  if (params.nesterov) return Launch(UpdateKernel<Rule::kNesterov>, blocks, kThreads, stream, args);
  return Launch(UpdateKernel<Rule::kMomentum>, blocks, kThreads, stream, args);
}

}  // namespace shardmax::cuda
