// How the CPU engine cuts a shard into tiles.
#pragma once

#include <cstdint>

#include "worker/engine/cpu/matmul.h"
#include "worker/engine/engine.h"

namespace shardmax {

struct TilePlan {
  int64_t tile_classes;    // T: classes of a tile; the last may have fewer.
  int64_t update_classes;  // Of T, those whose weight gradients are computed and used at a time.
};

// Bytes of the second-level cache of a core; a common size where the system does not say.
int64_t SecondLevelCacheBytes();

// The tiles for `options` on a core with such a cache: a pure function, so that a job that is resumed on a like machine
// has the same tiles, and with them the same bits. options.tile_classes wins if it is not 0.
TilePlan PlanTiles(const EngineOptions& options, OperandType type, int64_t cache_bytes);

}  // namespace shardmax
