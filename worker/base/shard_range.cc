#include "worker/base/shard_range.h"

#include <algorithm>

#include "worker/base/status.h"

namespace shardmax {

Range BalancedPart(int64_t total, int part, int parts) {
  const int64_t base = total / parts;
  const int64_t larger = total % parts;
  return {.first = part * base + std::min<int64_t>(part, larger), .count = base + (part < larger ? 1 : 0)};
}

absl::StatusOr<Range> ShardOfRank(int64_t num_classes, int rank, int world_size) {
  if (world_size < 1) return InvalidArgument("world size is {}; it must be at least 1", world_size);
  if (rank < 0 || rank >= world_size) {
    return InvalidArgument("rank is {}; it must be in [0, {})", rank, world_size);
  }
  if (world_size > num_classes) {
    return InvalidArgument("world size {} is larger than num_classes {}: launch at most {} ranks", world_size,
                           num_classes, num_classes);
  }
  return BalancedPart(num_classes, rank, world_size);
}

int64_t RowsOfChunk(int64_t count, int64_t dim, int64_t chunk_bytes) {
  return std::clamp<int64_t>(chunk_bytes / (dim * static_cast<int64_t>(sizeof(float))), 1, count);
}

}  // namespace shardmax
