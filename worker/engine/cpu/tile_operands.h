// The rows of a step, as the products of tiles take them.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "worker/base/aligned_buffer.h"
#include "worker/engine/cpu/matmul.h"

namespace shardmax {

// The features of a step [B, D], converted to the operands of products and packed, once for all tiles. Products of
// whole tiles (T classes) take a packed operand, those of the last, shorter one the rows as they are.
class TileOperands {
 public:
  TileOperands(int64_t tile_classes, int64_t update_classes, int64_t dim, OperandType type)
      : tile_classes_(tile_classes), update_classes_(update_classes), dim_(dim), type_(type) {}

  // Takes the features for cosines, for weight gradients or for both. They stay the caller's, and stay as they are
  // until the last product.
  absl::Status Prepare(MatrixView<const float> features, bool for_cosines, bool for_weight_gradients);

  int64_t rows() const { return rows_; }           // B
  int64_t padded_rows() const { return padded_; }  // P: columns of a tile.
  OperandType type() const { return type_; }

  // cosines [classes, P] = weights [classes, D] x features^T, and what that product takes as second operand.
  MatMulShape CosineProduct(int64_t classes) const;
  // weight gradients [classes, D] = gradients [classes, P] x features.
  MatMulShape WeightGradientProduct(int64_t classes) const;
  const void* SecondOperand(const MatMulShape& product) const;

 private:
  absl::Status Pack(const MatMulShape& product, AlignedBuffer<char>& packed);

  int64_t tile_classes_;
  int64_t update_classes_;
  int64_t dim_;
  OperandType type_;
  int64_t rows_ = 0;
  int64_t padded_ = 0;
  const void* features_ = nullptr;  // [B, D] of type_.
  AlignedBuffer<char> converted_;
  AlignedBuffer<char> packed_columns_;  // For cosines.
  AlignedBuffer<char> packed_rows_;     // For weight gradients.
  MatMul matmul_;
};

}  // namespace shardmax
