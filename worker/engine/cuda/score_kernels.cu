// Kernels that read the products of a tile to score rows.
#include <cmath>

#include "worker/engine/cuda/kernels.h"
#include "worker/engine/cuda/launch.cuh"
#include "worker/engine/cuda/vector_access.cuh"
#include "worker/engine/cuda/warp.cuh"

namespace shardmax::cuda {
namespace {

using Ops = ScalarOps<float>;

constexpr int kThreads = 256;
constexpr int kVectors = 2;
constexpr int kItems = 4 * kVectors;  // Elements of a thread.
constexpr int kChunk = kThreads * kItems;
static_assert(kChunk == kScoreChunk);

// Where an element has no class to score: past the end of the tile, or the row's label.
constexpr float kExcluded = -INFINITY;

// Cosines of classes [column, column + 4) of a row; those that do not count are kExcluded.
__device__ inline void LoadCosines(const Tile& tile, int row, int column, int label_column, float (&cosines)[4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) cosines[j] = kExcluded;
  if (column >= tile.count) return;
  const float4 products = Load4(tile.products + row * tile.stride + column);
  const float4 inverse_norms = Load4(tile.inverse_norms + tile.first + column);
  const float values[4] = {products.x * inverse_norms.x, products.y * inverse_norms.y, products.z * inverse_norms.z,
                           products.w * inverse_norms.w};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (column + j < tile.count && column + j != label_column) cosines[j] = values[j];
  }
}

// One thread a class looks for weights that are not finite.
__device__ inline void FindBadClass(const Tile& tile, int column, int* bad_class) {
  for (int j = 0; j < 4; ++j) {
    const int k = column + j;
    if (k < tile.count && std::isnan(tile.inverse_norms[tile.first + k])) atomicMin(bad_class, tile.first + k);
  }
}

// A block a row and chunk of classes: the largest logit first, then the exponentials below it. Sums of a thread's few
// elements are float32, all others float64.
__global__ void __launch_bounds__(kThreads) ScoreKernel(ScoreArgs args) {
  __shared__ float maxima[kThreads / kWarpSize];
  __shared__ double sums[kThreads / kWarpSize];
  __shared__ int counts[kThreads / kWarpSize];
  const Ops ops;
  const Tile& tile = args.tile;
  const ClassLogitScale scale = args.step->scale;
  const int row = static_cast<int>(blockIdx.x);
  const int chunk = static_cast<int>(blockIdx.y) * kChunk;
  const float threshold = args.thresholds[row];
  const int label_column = tile.labels[row] - tile.first_global_class;

  float cosines[kVectors][4];
  float largest = kExcluded;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int column = chunk + (v * kThreads + static_cast<int>(threadIdx.x)) * 4;
    LoadCosines(tile, row, column, label_column, cosines[v]);
    if (row == 0) FindBadClass(tile, column, &args.step->bad_class);
#pragma unroll
    for (int j = 0; j < 4; ++j) largest = Larger()(largest, Logit(ops, scale, threshold, cosines[v][j]));
  }
  largest = BlockReduce<kThreads>(largest, Larger(), maxima);

  float sum = 0;
  int support_vectors = 0;
  if (largest > kExcluded) {
    const auto shift = static_cast<double>(largest);
    const ShiftedLogit<float> shifted = {threshold, static_cast<float>(scale.plain_slope), -largest,
                                         static_cast<float>(scale.support_vector_slope),
                                         static_cast<float>(scale.support_vector_offset - shift)};
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const bool is_support_vector = IsSupportVector(ops, shifted, cosines[v][j]);
        sum += ExpLogit(ops, shifted, cosines[v][j], is_support_vector);
        support_vectors += is_support_vector ? 1 : 0;
      }
    }
  }
  const double block_sum = BlockReduce<kThreads>(static_cast<double>(sum), Add(), sums);
  const int block_count = BlockReduce<kThreads>(support_vectors, Add(), counts);
  if (threadIdx.x == 0) {
    ShardPartial mine;
    mine.sum_exp = block_sum;
    mine.max_logit = largest;
    mine.support_vectors = block_count;
    ShardPartial& slot = args.partials[static_cast<int64_t>(blockIdx.y) * tile.rows + row];
    slot = args.is_first ? mine : Merge(slot, mine);
  }
}

__global__ void __launch_bounds__(kThreads) MergeKernel(MergeArgs args) {
  const int row = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (row == 0 && args.bad_global_class != nullptr) {
    const int bad_class = args.step->bad_class;
    *args.bad_global_class = bad_class == kNoBadClass ? -1 : args.first_class + bad_class;
  }
  if (row >= args.rows) return;
  ShardPartial all = args.partials[row];
  for (int slot = 1; slot < args.slots; ++slot) {
    all = Merge(all, args.partials[static_cast<int64_t>(slot) * args.rows + row]);
  }
  args.merged[row] = all;
}

// The nearer of two, ties to the lower id.
__device__ inline bool IsNearer(const NearestClass& a, const NearestClass& b) {
  if (a.global_class < 0 || b.global_class < 0) return b.global_class < 0 && a.global_class >= 0;
  return a.cosine > b.cosine || (a.cosine == b.cosine && a.global_class < b.global_class);
}

// A block a row.
__global__ void __launch_bounds__(kThreads) NearestKernel(NearestArgs args) {
  __shared__ NearestClass warps[kThreads / kWarpSize];
  const Tile& tile = args.tile;
  const int row = static_cast<int>(blockIdx.x);
  NearestClass best = {kExcluded, -1};
  for (int column = static_cast<int>(threadIdx.x) * 4; column < tile.count; column += kThreads * 4) {
    float cosines[4];
    LoadCosines(tile, row, column, -1, cosines);
    if (row == 0) FindBadClass(tile, column, &args.step->bad_class);
    for (int j = 0; j < 4; ++j) {
      const NearestClass candidate = {cosines[j], tile.first_global_class + column + j};
      if (column + j < tile.count && !std::isnan(cosines[j]) && IsNearer(candidate, best)) best = candidate;
    }
  }
  for (int lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
    const NearestClass other = {__shfl_xor_sync(kAllLanes, best.cosine, lanes),
                                __shfl_xor_sync(kAllLanes, best.global_class, lanes)};
    if (IsNearer(other, best)) best = other;
  }
  if (threadIdx.x % kWarpSize == 0) warps[threadIdx.x / kWarpSize] = best;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < kThreads / kWarpSize; ++i) {
      if (IsNearer(warps[i], best)) best = warps[i];
    }
    NearestClass& kept = args.nearest[row];
    if (args.is_first || IsNearer(best, kept)) kept = best;
  }
}

}  // namespace

cudaError_t LaunchScore(const ScoreArgs& args, cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>(args.tile.rows), BlocksFor(args.tile.count, kChunk));
  return Launch(ScoreKernel, blocks, kThreads, stream, args);
}

cudaError_t LaunchMerge(const MergeArgs& args, cudaStream_t stream) {
  return Launch(MergeKernel, BlocksFor(args.rows, kThreads), kThreads, stream, args);
}

cudaError_t LaunchNearest(const NearestArgs& args, cudaStream_t stream) {
  return Launch(NearestKernel, static_cast<unsigned>(args.tile.rows), kThreads, stream, args);
}

}  // namespace shardmax::cuda
