#include "worker/engine/cpu/thread_work.h"

#include <algorithm>
#include <limits>

#include "worker/base/status.h"

namespace shardmax {
namespace {

// Replaces `buffer` by a larger one where it is too small.
template <typename T>
absl::Status Grow(AlignedBuffer<T>& buffer, int64_t size) {
  if (buffer.size() >= size) return absl::OkStatus();
  buffer = AlignedBuffer<T>();  // Frees first.
  SHARDMAX_ASSIGN_OR_RETURN(buffer, AlignedBuffer<T>::Allocate(size));
  return absl::OkStatus();
}

}  // namespace

absl::Status ThreadWork::Reserve(int64_t rows, int64_t padded_rows, bool with_feature_gradients) {
  SHARDMAX_RETURN_IF_ERROR(Grow(tile_, tile_classes_ * padded_rows));
  SHARDMAX_RETURN_IF_ERROR(Grow(weight_gradients_, tile_classes_ * dim_));
  SHARDMAX_RETURN_IF_ERROR(Grow(along_weights_, tile_classes_));
  SHARDMAX_RETURN_IF_ERROR(Grow(max_logits_, padded_rows));
  SHARDMAX_RETURN_IF_ERROR(Grow(sums_, padded_rows));
  SHARDMAX_RETURN_IF_ERROR(Grow(support_vectors_, padded_rows));
  if (with_feature_gradients) SHARDMAX_RETURN_IF_ERROR(Grow(feature_gradients_, rows * dim_));
  if (precision_ == Precision::kBfloat16) {
    SHARDMAX_RETURN_IF_ERROR(Grow(bfloat16_weights_, tile_classes_ * dim_));
    SHARDMAX_RETURN_IF_ERROR(Grow(bfloat16_tile_, tile_classes_ * padded_rows));
  }
  return absl::OkStatus();
}

absl::Status ThreadWork::Begin(int64_t rows, int64_t padded_rows, bool with_feature_gradients) {
  SHARDMAX_RETURN_IF_ERROR(Reserve(rows, padded_rows, with_feature_gradients));
  rows_ = rows;
  std::fill_n(max_logits_.data(), padded_rows, -std::numeric_limits<float>::infinity());
  std::fill_n(sums_.data(), padded_rows, 0.0);
  std::fill_n(support_vectors_.data(), padded_rows, 0);
  if (with_feature_gradients) std::fill_n(feature_gradients_.data(), rows * dim_, 0.0F);
  return absl::OkStatus();
}

absl::Status ThreadWork::ComputeCosines(MatrixView<const float> weights, const float* inverse_norms,
                                        const TileOperands& operands) {
  cosines_ = {tile_.data(), weights.rows, operands.padded_rows};
  weight_operand_ = weights.data;
  if (precision_ == Precision::kBfloat16) {
    ToBfloat16(weights.data, weights.rows * weights.cols, bfloat16_weights_.data());
    weight_operand_ = bfloat16_weights_.data();
  }
  SHARDMAX_RETURN_IF_ERROR(matmul_.Run({.m = weights.rows,
                                        .n = operands.rows,
                                        .k = dim_,
                                        .lda = dim_,
                                        .ldb = dim_,
                                        .ldc = operands.padded_rows,
                                        .transpose_b = true,
                                        .precision = precision_},
                                       weight_operand_, operands.features, cosines_.data));
  for (int64_t k = 0; k < weights.rows; ++k) {
    std::fill(cosines_.row(k).begin() + operands.rows, cosines_.row(k).end(), 0.0F);
  }
  // The weights are normalised here, after the product: that spares a normalised copy of them.
  ScaleRows(cosines_, inverse_norms);
  return absl::OkStatus();
}

absl::Status ThreadWork::MultiplyGradients(const TileOperands& operands, bool with_feature_gradients) {
  const void* gradients = cosines_.data;
  if (precision_ == Precision::kBfloat16) {
    ToBfloat16(cosines_.data, cosines_.rows * cosines_.cols, bfloat16_tile_.data());
    gradients = bfloat16_tile_.data();
  }
  SHARDMAX_RETURN_IF_ERROR(matmul_.Run({.m = cosines_.rows,
                                        .n = dim_,
                                        .k = operands.rows,
                                        .lda = cosines_.cols,
                                        .ldb = dim_,
                                        .ldc = dim_,
                                        .precision = precision_},
                                       gradients, operands.features, weight_gradients_.data()));
  if (!with_feature_gradients) return absl::OkStatus();
  return matmul_.Run({.m = operands.rows,
                      .n = dim_,
                      .k = cosines_.rows,
                      .lda = cosines_.cols,
                      .ldb = dim_,
                      .ldc = dim_,
                      .transpose_a = true,
                      .accumulate = true,
                      .precision = precision_},
                     gradients, weight_operand_, feature_gradients_.data());
}

}  // namespace shardmax
