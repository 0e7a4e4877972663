#include "worker/engine/cpu/tile_plan.h"

#include <unistd.h>

#include <algorithm>

namespace shardmax {
namespace {

constexpr int64_t kMinTileClasses = 64;
constexpr int64_t kMaxTileClasses = 512;
// Weight gradients of so many classes are added to the weights while they are in the caches nearest to the core.
constexpr int64_t kUpdateClasses = 64;
constexpr int64_t kUsualCacheBytes = int64_t{1} << 20;

}  // namespace

int64_t SecondLevelCacheBytes() {
  const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return bytes > 0 ? bytes : kUsualCacheBytes;
}

TilePlan PlanTiles(const EngineOptions& options, OperandType type, int64_t cache_bytes) {
  const int64_t operand_bytes = type == OperandType::kBfloat16 ? 2 : 4;
  // Of a class of a tile, used over and over: its packed weights, and its products and gradients of the batch.
  const int64_t bytes_per_class = operand_bytes * options.dim + 4 * options.batch_rows;
  // The other half of the cache is for what streams through: features, weights, optimizer state, weight gradients.
  const int64_t fitting = cache_bytes / 2 / bytes_per_class / kMinTileClasses * kMinTileClasses;
  const int64_t per_thread = (options.shard.count + options.threads - 1) / options.threads;
  int64_t tile = std::clamp(fitting, kMinTileClasses, kMaxTileClasses);
  if (options.tile_classes > 0) tile = options.tile_classes;
  tile = std::max<int64_t>(1, std::min(tile, per_thread));
  return {.tile_classes = tile, .update_classes = std::min(tile, kUpdateClasses)};
}

}  // namespace shardmax
