// The work of a step on the shard, tile by tile, enqueued on one stream. Nothing here touches the host's memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "absl/status/status.h"
#include "worker/engine/cuda/batch_buffers.h"
#include "worker/engine/cuda/gemm.h"
#include "worker/engine/cuda/kernels.h"
#include "worker/engine/cuda/shard_tensors.h"
#include "worker/engine/engine.h"

namespace shardmax::cuda {

// Borrows all of it. Reads the batch's features, labels and step state from `batch`, for batches of `rows` rows.
class TileWork {
 public:
  TileWork(const EngineOptions& options, Gemm& gemm, ShardTensors& shard, BatchBuffers& batch, cudaStream_t stream)
      : options_(options), gemm_(gemm), shard_(shard), batch_(batch), stream_(stream) {}

  cudaStream_t stream() const { return stream_; }

  // batch.label_cosines
  absl::Status LabelCosines(int64_t rows);
  // merged [rows] from batch.row_numbers' thresholds; as MergeArgs for `bad_global_class`.
  absl::Status Score(int64_t rows, ShardPartial* merged, int32_t* bad_global_class);
  // The backward pass but for the update of the last tile: batch.feature_gradients, if wanted, are there then.
  absl::Status Backward(int64_t rows, const OptimizerParams& params, bool with_feature_gradients);
  absl::Status UpdateLastTile(int64_t rows, const OptimizerParams& params);
  // batch.nearest
  absl::Status NearestClasses(int64_t rows);

 private:
  int64_t stride() const { return batch_.plan.stride; }
  bool is_bfloat16() const { return options_.precision == Precision::kBfloat16; }
  const void* feature_operand() const {
    if (is_bfloat16()) return batch_.bfloat16_features.data();
    return batch_.features.data();
  }
  const void* gradient_operand() const {
    if (is_bfloat16()) return batch_.bfloat16_gradients.data();
    return batch_.products.data();
  }
  Tile TileAt(int64_t first, int64_t rows) const;
  // Calls fn(tile) for each tile of the shard, its products enqueued.
  template <typename Fn>
  absl::Status ForEachTile(int64_t rows, const Fn& fn);
  absl::Status Gradients(const Tile& tile, bool with_feature_gradients);
  absl::Status Update(const Tile& tile, const OptimizerParams& params);

  const EngineOptions& options_;
  Gemm& gemm_;
  ShardTensors& shard_;
  BatchBuffers& batch_;
  const cudaStream_t stream_;
};

}  // namespace shardmax::cuda
