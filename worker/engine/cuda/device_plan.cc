#include "worker/engine/cuda/device_plan.h"

#include <algorithm>

#include "worker/engine/cuda/limits.h"
#include "worker/engine/cuda/step_state.h"
#include "worker/engine/device_header.h"

namespace shardmax::cuda {
namespace {

constexpr int64_t kMultiple = 8;
constexpr int64_t kMinTileClasses = 128;
constexpr int64_t kMaxTileClasses = 32768;

int64_t RoundUp(int64_t value, int64_t to) {
  return (value + to - 1) / to * to;
}

}  // namespace

BlockSizes SizesOfBlocks(int64_t rows, int64_t block_rows, int64_t dim) {
  constexpr auto kHeader = static_cast<int64_t>(DeviceHeader::kBytes);
  return {.row_bytes = kHeader + block_rows * (4 * dim + 4),
          .partial_bytes = kHeader + rows * static_cast<int64_t>(sizeof(ShardPartial)),
          .gradient_floats = block_rows * dim + 1};
}

int64_t ExchangeBytes(int64_t rows, int64_t block_rows, int64_t dim, int ranks) {
  const BlockSizes block = SizesOfBlocks(rows, block_rows, dim);
  // Beside the blocks: where the rows of each rank begin, this rank's inverse norms, and the results.
  return ranks * (block.row_bytes + block.partial_bytes + 4 * block.gradient_floats) + 4 * (ranks + 1) +
         4 * block_rows + rows * kExchangeRowBytes + static_cast<int64_t>(sizeof(StepResults));
}

DevicePlan PlanDevice(const EngineOptions& options, int64_t rows, int64_t l2_bytes) {
  const bool bfloat16 = options.precision == Precision::kBfloat16;
  const int64_t classes = options.shard.count;
  DevicePlan plan;
  plan.stride = RoundUp(options.dim, kMultiple);

  const int64_t bytes_per_class = rows * (bfloat16 ? 6 : 4) + 4 * plan.stride;
  const int64_t fitting = std::clamp(l2_bytes / 2 / bytes_per_class, kMinTileClasses, kMaxTileClasses);
  plan.tile_classes = std::min(fitting / kMinTileClasses * kMinTileClasses, RoundUp(classes, kMultiple));

  const auto states = static_cast<int64_t>(options.optimizer.StateNames().size());
  plan.weight_bytes = 4 * classes * plan.stride;
  plan.state_bytes = states * plan.weight_bytes;
  plan.copy_bytes = bfloat16 ? 2 * classes * plan.stride : 0;
  plan.norm_bytes = 4 * RoundUp(classes, kMultiple);
  plan.tile_bytes = plan.tile_classes * bytes_per_class;
  // Features and their gradients; labels, label cosines and four numbers a row; partial normalisers and their union.
  plan.batch_bytes = rows * ((bfloat16 ? 10 : 8) * plan.stride + 4 * 6 +
                             static_cast<int64_t>(sizeof(ShardPartial)) * (ScoreSlots(plan.tile_classes) + 1) +
                             static_cast<int64_t>(sizeof(NearestClass)));
  plan.batch_bytes += static_cast<int64_t>(sizeof(StepState));
  plan.exchange_bytes = ExchangeBytes(rows, (rows + options.ranks - 1) / options.ranks, options.dim, options.ranks);
  plan.workspace_bytes = kGemmWorkspaceBytes;
  return plan;
}

int64_t LargestShard(EngineOptions options, int64_t rows, int64_t l2_bytes, int64_t bytes) {
  int64_t fits = 0;
  int64_t too_large = int64_t{1} << 40;
  while (too_large - fits > 1) {
    options.shard.count = fits + (too_large - fits) / 2;
    (PlanDevice(options, rows, l2_bytes).total_bytes() <= bytes ? fits : too_large) = options.shard.count;
  }
  return fits;
}

}  // namespace shardmax::cuda
