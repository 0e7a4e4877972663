#include "worker/engine/cuda/tile_work.h"

#include <algorithm>

#include "worker/base/cuda_status.h"
#include "worker/base/status.h"

namespace shardmax::cuda {

Tile TileWork::TileAt(int64_t first, int64_t rows) const {
  const int64_t tile_classes = batch_.plan.tile_classes;
  return {.products = batch_.products.data(),
          .stride = tile_classes,
          .rows = static_cast<int>(rows),
          .count = static_cast<int>(std::min(tile_classes, options_.shard.count - first)),
          .first = static_cast<int>(first),
          .first_global_class = static_cast<int>(options_.shard.first + first),
          .inverse_norms = shard_.inverse_norms(),
          .labels = batch_.labels.data()};
}

template <typename Fn>
absl::Status TileWork::ForEachTile(int64_t rows, const Fn& fn) {
  const int64_t tile_classes = batch_.plan.tile_classes;
  for (int64_t first = 0; first < options_.shard.count; first += tile_classes) {
    const Tile tile = TileAt(first, rows);
    const GemmShape shape = {.m = rows,
                             .n = tile.count,
                             .k = stride(),
                             .lda = stride(),
                             .ldb = stride(),
                             .ldc = tile_classes,
                             .transpose_b = true};
    SHARDMAX_RETURN_IF_ERROR(
        gemm_.Run(shape, feature_operand(), shard_.operand(first), batch_.products.data(), stream_));
    SHARDMAX_RETURN_IF_ERROR(fn(tile));
  }
  return absl::OkStatus();
}

absl::Status TileWork::LabelCosines(int64_t rows) {
  const LabelArgs args = {.features = batch_.features.data(),
                          .weights = shard_.weights(0),
                          .stride = stride(),
                          .rows = static_cast<int>(rows),
                          .first_class = static_cast<int>(options_.shard.first),
                          .classes = static_cast<int>(options_.shard.count),
                          .labels = batch_.labels.data(),
                          .cosines = batch_.label_cosines.data()};
  SHARDMAX_CUDA(LaunchLabelCosines, args, stream_);
  return absl::OkStatus();
}

absl::Status TileWork::Score(int64_t rows, ShardPartial* merged, int32_t* bad_global_class) {
  const RowNumbers numbers = RowNumbers::In(batch_.row_numbers.data(), rows);
  SHARDMAX_RETURN_IF_ERROR(ForEachTile(rows, [&](const Tile& tile) -> absl::Status {
    const ScoreArgs args = {.tile = tile,
                            .step = batch_.step.data(),
                            .thresholds = numbers.thresholds,
                            .partials = batch_.partials.data(),
                            .is_first = tile.first == 0};
    SHARDMAX_CUDA(LaunchScore, args, stream_);
    return absl::OkStatus();
  }));
  const MergeArgs args = {.partials = batch_.partials.data(),
                          .slots = ScoreSlots(std::min(batch_.plan.tile_classes, options_.shard.count)),
                          .rows = static_cast<int>(rows),
                          .merged = merged,
                          .step = batch_.step.data(),
                          .first_class = static_cast<int>(options_.shard.first),
                          .bad_global_class = bad_global_class};
  SHARDMAX_CUDA(LaunchMerge, args, stream_);
  return absl::OkStatus();
}

absl::Status TileWork::Gradients(const Tile& tile, bool with_feature_gradients) {
  const RowNumbers numbers = RowNumbers::In(batch_.row_numbers.data(), tile.rows);
  const GradientArgs args = {.tile = tile,
                             .step = batch_.step.data(),
                             .thresholds = numbers.thresholds,
                             .shifts = numbers.shifts,
                             .row_scales = numbers.row_scales,
                             .label_gradients = numbers.label_gradients,
                             .bfloat16_gradients = batch_.bfloat16_gradients.data()};
  SHARDMAX_CUDA(LaunchGradients, args, stream_);
  if (!with_feature_gradients) return absl::OkStatus();
  // Before the update: it is the gradient at the weights as they were.
  const GemmShape shape = {.m = tile.rows,
                           .n = stride(),
                           .k = tile.count,
                           .lda = tile.stride,
                           .ldb = stride(),
                           .ldc = stride(),
                           .accumulate = tile.first > 0};
  return gemm_.Run(shape, gradient_operand(), shard_.operand(tile.first), batch_.feature_gradients.data(), stream_);
}

absl::Status TileWork::Update(const Tile& tile, const OptimizerParams& params) {
  const GemmShape shape = {.m = tile.count,
                           .n = stride(),
                           .k = tile.rows,
                           .lda = tile.stride,
                           .ldb = stride(),
                           .ldc = stride(),
                           .transpose_a = true};
  SHARDMAX_RETURN_IF_ERROR(
      gemm_.Run(shape, gradient_operand(), feature_operand(), batch_.weight_gradients.data(), stream_));
  const UpdateArgs args = {.gradients = batch_.weight_gradients.data(),
                           .weights = shard_.weights(tile.first),
                           .first_state = shard_.state(0, tile.first),
                           .second_state = shard_.state(1, tile.first),
                           .stride = stride(),
                           .count = tile.count,
                           .inverse_norms = shard_.inverse_norms() + tile.first,
                           .bfloat16_weights = shard_.bfloat16_weights(tile.first),
                           .step = batch_.step.data()};
  SHARDMAX_CUDA(LaunchUpdate, args, params, stream_);
  return absl::OkStatus();
}

absl::Status TileWork::Backward(int64_t rows, const OptimizerParams& params, bool with_feature_gradients) {
  return ForEachTile(rows, [&](const Tile& tile) -> absl::Status {
    SHARDMAX_RETURN_IF_ERROR(Gradients(tile, with_feature_gradients));
    const bool is_last = tile.first + tile.count == options_.shard.count;
    return is_last ? absl::OkStatus() : Update(tile, params);
  });
}

absl::Status TileWork::UpdateLastTile(int64_t rows, const OptimizerParams& params) {
  const int64_t tile_classes = batch_.plan.tile_classes;
  return Update(TileAt((options_.shard.count - 1) / tile_classes * tile_classes, rows), params);
}

absl::Status TileWork::NearestClasses(int64_t rows) {
  return ForEachTile(rows, [&](const Tile& tile) -> absl::Status {
    const NearestArgs args = {
        .tile = tile, .nearest = batch_.nearest.data(), .is_first = tile.first == 0, .step = batch_.step.data()};
    SHARDMAX_CUDA(LaunchNearest, args, stream_);
    return absl::OkStatus();
  });
}

}  // namespace shardmax::cuda
