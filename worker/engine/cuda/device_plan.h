// Sizes of the CUDA engine's tiles and buffers, worked out without a device.
#pragma once

#include <cstdint>

#include "worker/engine/engine.h"

namespace shardmax::cuda {

// How an engine lays out a shard. Bytes are those of cudaMalloc.
struct DevicePlan {
  int64_t stride = 0;        // D rounded up to a multiple of 8: rows begin and end at 16 bytes, in bfloat16 too.
  int64_t tile_classes = 0;  // A multiple of 8.

  int64_t weight_bytes = 0;     // Float32 masters.
  int64_t state_bytes = 0;      // Optimizer state.
  int64_t copy_bytes = 0;       // The bfloat16 weights that products read; 0 in float32.
  int64_t norm_bytes = 0;       // Inverse norms.
  int64_t tile_bytes = 0;       // Products, gradients, and weight gradients of a tile.
  int64_t batch_bytes = 0;      // Features and their gradients, labels, what a row needs, partial results.
  int64_t exchange_bytes = 0;   // Blocks of all ranks: rows, partial results, feature gradients; outcomes of rows.
  int64_t workspace_bytes = 0;  // Of cuBLASLt.

  int64_t total_bytes() const {
    return weight_bytes + state_bytes + copy_bytes + norm_bytes + tile_bytes + batch_bytes + exchange_bytes +
           workspace_bytes;
  }
};

// Sizes of the blocks of a rank, of which the largest has `block_rows` of the batch's `rows` rows.
struct BlockSizes {
  int64_t row_bytes = 0;        // Header, features, labels.
  int64_t partial_bytes = 0;    // Header, partials.
  int64_t gradient_floats = 0;  // Feature gradients, a mark.
};
BlockSizes SizesOfBlocks(int64_t rows, int64_t block_rows, int64_t dim);

// Device memory of an exchange between `ranks` ranks.
int64_t ExchangeBytes(int64_t rows, int64_t block_rows, int64_t dim, int ranks);

// For global batches of up to `rows` rows, dealt out evenly to options.ranks ranks. A tile's products and gradients
// take half of the `l2_bytes` of the device's cache; all of it follows from the arguments.
DevicePlan PlanDevice(const EngineOptions& options, int64_t rows, int64_t l2_bytes);

// The most classes of a shard whose plan has at most `bytes`; 0 if none has.
int64_t LargestShard(EngineOptions options, int64_t rows, int64_t l2_bytes, int64_t bytes);

}  // namespace shardmax::cuda
