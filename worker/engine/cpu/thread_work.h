// What one thread of the CPU engine needs for its tiles.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "worker/base/aligned_buffer.h"
#include "worker/base/shard_range.h"
#include "worker/engine/cpu/matmul.h"
#include "worker/engine/cpu/tile_kernels.h"

namespace shardmax {

// The rows of a step as products take them. B rows in P = padded_rows columns of a tile.
struct TileOperands {
  const void* features = nullptr;  // x̂ [B, D] in the engine's precision
  int64_t rows = 0;                // B
  int64_t padded_rows = 0;         // P
};

// Buffers and products of one thread. Sizes grow with the batch and are kept.
class ThreadWork {
 public:
  ThreadWork(int64_t tile_classes, int64_t dim, Precision precision)
      : tile_classes_(tile_classes), dim_(dim), precision_(precision) {}

  // Makes room for batches of `rows` rows, and sets what is added up over tiles to neutral.
  absl::Status Begin(int64_t rows, int64_t padded_rows, bool with_feature_gradients);

  // cosines() = cos of the tile's classes [T, P], columns beyond B zero. `weights` [T, D] and `inverse_norms` [T] are
  // those of the tile.
  absl::Status ComputeCosines(MatrixView<const float> weights, const float* inverse_norms,
                              const TileOperands& operands);

  // With cosines() turned into gradients dcos / |w| [T, P]: weight_gradients() = their product with x̂, and if wanted
  // feature_gradients() += their transpose times the weights of ComputeCosines.
  absl::Status MultiplyGradients(const TileOperands& operands, bool with_feature_gradients);

  MatrixView<float> cosines() { return cosines_; }
  MatrixView<float> weight_gradients() { return {weight_gradients_.data(), cosines_.rows, dim_}; }
  MatrixView<float> feature_gradients() { return {feature_gradients_.data(), rows_, dim_}; }  // [B, D]
  float* along_weights() { return along_weights_.data(); }                                    // [T]
  RunningNormalizer running() { return {max_logits_.data(), sums_.data(), support_vectors_.data()}; }
  float* nearest_cosines() { return max_logits_.data(); }         // [P], from -inf
  int32_t* nearest_classes() { return support_vectors_.data(); }  // [P], from 0

 private:
  absl::Status Reserve(int64_t rows, int64_t padded_rows, bool with_feature_gradients);

  int64_t tile_classes_;
  int64_t dim_;
  Precision precision_;
  MatMul matmul_;
  int64_t rows_ = 0;
  const void* weight_operand_ = nullptr;  // Of the last ComputeCosines, [T, D] in the engine's precision.
  MatrixView<float> cosines_;             // Into tile_.
  AlignedBuffer<float> tile_;
  AlignedBuffer<float> weight_gradients_;
  AlignedBuffer<float> feature_gradients_;
  AlignedBuffer<float> along_weights_;
  AlignedBuffer<uint16_t> bfloat16_weights_;
  AlignedBuffer<uint16_t> bfloat16_tile_;
  AlignedBuffer<float> max_logits_;
  AlignedBuffer<double> sums_;
  AlignedBuffer<int32_t> support_vectors_;
};

}  // namespace shardmax
