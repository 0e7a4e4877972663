// Kernels between the collectives of a step.
#include <cmath>

#include "worker/engine/cuda/launch.cuh"
#include "worker/engine/cuda/step_kernels.h"
#include "worker/engine/cuda/vector_access.cuh"
#include "worker/engine/cuda/warp.cuh"
#include "worker/engine/device_header.h"
#include "worker/loss/hard_mining.h"
#include "worker/loss/row_gradient.h"

namespace shardmax::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsOfBlock = kThreads / kWarpSize;  // Where a warp has a row.

__device__ inline int RowOfWarp() {
  return static_cast<int>(blockIdx.x) * kRowsOfBlock + static_cast<int>(threadIdx.x) / kWarpSize;
}
__device__ inline int RowOfThread() {
  return static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
}
__device__ inline int LaneOfThread() {
  return static_cast<int>(threadIdx.x) % kWarpSize;
}

__device__ inline void Stop(StepState* step) {
  atomicMin(&step->go, 0);
}

// The first block looks at the status of each rank.
__device__ inline void CheckHeaders(const std::byte* blocks, int64_t block_bytes, int ranks, StepState* step) {
  if (blockIdx.x != 0) return;
  for (int rank = static_cast<int>(threadIdx.x); rank < ranks; rank += kThreads) {
    if (*reinterpret_cast<const int32_t*>(blocks + rank * block_bytes) != 0) Stop(step);
  }
}

// Whose part `row` is in. Of parts that begin at one row the last has it, those before are empty.
__device__ inline int RankOfRow(const RowParts& parts, int row) {
  int low = 0;
  int high = parts.ranks - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (parts.first_rows[middle] <= row) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

__global__ void __launch_bounds__(kThreads) UnpackKernel(UnpackArgs args) {
  CheckHeaders(args.blocks, args.block_bytes, args.parts.ranks, args.step);
  const int row = RowOfWarp();
  if (row >= args.rows) return;
  const int rank = RankOfRow(args.parts, row);
  const int row_of_block = row - args.parts.first_rows[rank];
  const std::byte* block = args.blocks + rank * args.block_bytes + DeviceHeader::kBytes;
  const auto* features = reinterpret_cast<const float*>(block);
  const auto* labels = reinterpret_cast<const int32_t*>(features + args.parts.block_rows * args.dim);
  if (LaneOfThread() == 0) args.labels[row] = labels[row_of_block];
  // Rows of blocks are aligned to four bytes only.
  const float* from = features + row_of_block * args.dim;
  for (int64_t i = LaneOfThread() * 4; i < args.stride; i += int64_t{kWarpSize} * 4) {
    const float4 x = make_float4(i < args.dim ? from[i] : 0, i + 1 < args.dim ? from[i + 1] : 0,
                                 i + 2 < args.dim ? from[i + 2] : 0, i + 3 < args.dim ? from[i + 3] : 0);
    Store4(args.features + row * args.stride + i, x);
    if (args.bfloat16_features != nullptr) Store4(args.bfloat16_features + row * args.stride + i, x);
  }
}

__global__ void __launch_bounds__(kThreads) TargetKernel(TargetArgs args) {
  const int row = RowOfThread();
  if (row >= args.rows) return;
  TargetLogit target;
  float threshold = INFINITY;
  if (args.labels[row] >= 0) {
    const float cosine = args.cosines[row];
    if (std::isfinite(cosine)) {
      target = EvaluateTargetLogit(args.step->loss, static_cast<double>(cosine));
      threshold = static_cast<float>(target.value);
    } else {
      Stop(args.step);
    }
  }
  args.targets[row] = target;
  args.thresholds[row] = threshold;
}

__global__ void __launch_bounds__(kThreads) LossKernel(LossArgs args) {
  CheckHeaders(args.blocks, args.block_bytes, args.ranks, args.step);
  if (blockIdx.x == 0) {
    for (int rank = static_cast<int>(threadIdx.x); rank < args.ranks; rank += kThreads) {
      const std::byte* bad_class = args.blocks + rank * args.block_bytes + DeviceHeader::kStatusBytes;
      if (*reinterpret_cast<const int32_t*>(bad_class) >= 0) Stop(args.step);
    }
  }
  const int row = RowOfThread();
  if (row >= args.rows) return;
  RowLoss loss;
  ShardPartial others;
  if (args.labels[row] >= 0) {
    for (int rank = 0; rank < args.ranks; ++rank) {
      const std::byte* block = args.blocks + rank * args.block_bytes + DeviceHeader::kBytes;
      const ShardPartial partial = reinterpret_cast<const ShardPartial*>(block)[row];
      if (!std::isfinite(partial.sum_exp) || std::isnan(partial.max_logit)) Stop(args.step);
      others = Merge(others, partial);
    }
    const LossParams& params = args.step->loss;
    loss = EvaluateRowLoss(others, params.scale * args.targets[row].value, params.gamma);
  }
  args.losses[row] = loss;
  args.support_vectors[row] = others.support_vectors;
}

// A thread a row counts those that come before it, in chunks that the block brings to shared memory.
__global__ void __launch_bounds__(kThreads) KeepKernel(KeepArgs args) {
  __shared__ double losses[kThreads];
  __shared__ int counted[kThreads];
  const int row = RowOfThread();
  const int me = static_cast<int>(threadIdx.x);
  const bool is_counted = row < args.rows && args.labels[row] >= 0;
  const double keep = args.step->loss.keep;
  if (keep >= 1) {
    if (row < args.rows) args.kept[row] = is_counted ? 1 : 0;
    return;
  }
  const double loss = row < args.rows ? args.losses[row].loss : 0;
  int before = 0;
  int all = 0;
  for (int first = 0; first < args.rows; first += kThreads) {
    __syncthreads();  // All have read the chunk before.
    const int other = first + me;
    counted[me] = other < args.rows && args.labels[other] >= 0 ? 1 : 0;
    losses[me] = counted[me] != 0 ? args.losses[other].loss : 0;
    __syncthreads();
    for (int i = 0; i < kThreads; ++i) {
      if (counted[i] == 0) continue;
      ++all;
      if (losses[i] > loss || (losses[i] == loss && first + i < row)) ++before;
    }
  }
  if (row < args.rows) args.kept[row] = is_counted && before < KeptCount(keep, all) ? 1 : 0;
}

// One block.
__global__ void __launch_bounds__(kThreads) FinishKernel(FinishArgs args) {
  __shared__ double loss_sums[kRowsOfBlock];
  __shared__ double cosine_sums[kRowsOfBlock];
  __shared__ double support_sums[kRowsOfBlock];
  __shared__ int counted_sums[kRowsOfBlock];
  __shared__ int kept_sums[kRowsOfBlock];
  double loss = 0;
  double cosine = 0;
  double support_vectors = 0;  // Exact: far fewer than 2^53.
  int counted = 0;
  int kept = 0;
  for (int row = static_cast<int>(threadIdx.x); row < args.rows; row += kThreads) {
    if (args.labels[row] < 0) continue;
    ++counted;
    cosine += static_cast<double>(args.cosines[row]);
    support_vectors += args.support_vectors[row];
    if (args.kept[row] == 0) continue;
    ++kept;
    loss += args.losses[row].loss;
  }
  loss = BlockReduce<kThreads>(loss, Add(), loss_sums);
  cosine = BlockReduce<kThreads>(cosine, Add(), cosine_sums);
  support_vectors = BlockReduce<kThreads>(support_vectors, Add(), support_sums);
  counted = BlockReduce<kThreads>(counted, Add(), counted_sums);
  kept = BlockReduce<kThreads>(kept, Add(), kept_sums);

  const double row_weight = kept > 0 ? 1 / static_cast<double>(kept) : 0;
  for (int row = static_cast<int>(threadIdx.x); row < args.rows; row += kThreads) {
    const RowGradient gradient = EvaluateRowGradient(args.losses[row], args.targets[row], args.step->loss.scale,
                                                     args.kept[row] != 0 ? row_weight : 0);
    args.shifts[row] = gradient.shift;
    args.row_scales[row] = gradient.row_scale;
    args.label_gradients[row] = gradient.label_gradient;
  }
  if (threadIdx.x != 0) return;
  StepResults results;
  results.loss = loss * row_weight;
  results.mean_label_cosine = counted > 0 ? cosine / static_cast<double>(counted) : 0;
  results.support_vectors = static_cast<int64_t>(support_vectors);
  results.counted_rows = counted;
  results.go = args.step->go;
  *args.results = results;
}

// A warp a row of a block.
__global__ void __launch_bounds__(kThreads) PackKernel(PackArgs args) {
  const int packed = RowOfWarp();
  const int rank = packed / args.parts.block_rows;
  if (rank >= args.parts.ranks) return;
  const int row_of_block = packed - rank * args.parts.block_rows;
  const int row = args.parts.first_rows[rank] + row_of_block;
  const bool is_row = row < args.parts.first_rows[rank + 1];
  const int64_t block_floats = args.parts.block_rows * args.dim + 1;
  float* to = args.blocks + rank * block_floats + row_of_block * args.dim;
  for (int64_t i = LaneOfThread(); i < args.dim; i += kWarpSize) {
    to[i] = is_row ? args.gradients[row * args.stride + i] : 0;
  }
  if (row_of_block == 0 && LaneOfThread() == 0) args.blocks[(rank + 1) * block_floats - 1] = args.mark;
}

// A warp a row.
__global__ void __launch_bounds__(kThreads) JacobianKernel(JacobianArgs args) {
  const int row = RowOfWarp();
  if (row >= args.count) return;
  float* gradient = args.gradients + row * args.dim;
  const float* feature = args.features + row * args.stride;
  double dot = 0;
  for (int64_t i = LaneOfThread(); i < args.dim; i += kWarpSize) {
    dot += static_cast<double>(gradient[i]) * feature[i];
  }
  const auto along = static_cast<float>(WarpReduce(dot, Add()));
  const float inverse_norm = args.inverse_norms[row];
  for (int64_t i = LaneOfThread(); i < args.dim; i += kWarpSize) {
    gradient[i] = (gradient[i] - along * feature[i]) * inverse_norm;
  }
}

}  // namespace

cudaError_t LaunchUnpack(const UnpackArgs& args, cudaStream_t stream) {
  return Launch(UnpackKernel, BlocksFor(args.rows, kRowsOfBlock), kThreads, stream, args);
}

cudaError_t LaunchTargets(const TargetArgs& args, cudaStream_t stream) {
  return Launch(TargetKernel, BlocksFor(args.rows, kThreads), kThreads, stream, args);
}

cudaError_t LaunchLosses(const LossArgs& args, cudaStream_t stream) {
  return Launch(LossKernel, BlocksFor(args.rows, kThreads), kThreads, stream, args);
}

cudaError_t LaunchKeep(const KeepArgs& args, cudaStream_t stream) {
  return Launch(KeepKernel, BlocksFor(args.rows, kThreads), kThreads, stream, args);
}

cudaError_t LaunchFinish(const FinishArgs& args, cudaStream_t stream) {
  return Launch(FinishKernel, 1, kThreads, stream, args);
}

cudaError_t LaunchPack(const PackArgs& args, cudaStream_t stream) {
  const int64_t rows = int64_t{args.parts.ranks} * args.parts.block_rows;
  return Launch(PackKernel, BlocksFor(rows, kRowsOfBlock), kThreads, stream, args);
}

cudaError_t LaunchJacobian(const JacobianArgs& args, cudaStream_t stream) {
  return Launch(JacobianKernel, BlocksFor(args.count, kRowsOfBlock), kThreads, stream, args);
}

}  // namespace shardmax::cuda
