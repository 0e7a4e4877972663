#include "worker/engine/cpu/tile_operands.h"

#include "worker/base/status.h"
#include "worker/engine/cpu/tile_kernels.h"

namespace shardmax {

absl::Status TileOperands::Prepare(MatrixView<const float> features, bool for_cosines, bool for_weight_gradients) {
  rows_ = features.rows;
  padded_ = (rows_ + kColumnAlignment - 1) / kColumnAlignment * kColumnAlignment;
  features_ = features.data;
  const int64_t size = rows_ * dim_;
  if (type_ != OperandType::kFloat32) {
    SHARDMAX_RETURN_IF_ERROR(Grow(converted_, size * static_cast<int64_t>(sizeof(float))));
    features_ = converted_.data();
  }
  if (type_ == OperandType::kBfloat16) {
    ToBfloat16(features.data, size, reinterpret_cast<uint16_t*>(converted_.data()));
  } else if (type_ == OperandType::kRoundedToFloat32) {
    RoundToBfloat16(features.data, size, reinterpret_cast<float*>(converted_.data()));
  }
  if (for_cosines) SHARDMAX_RETURN_IF_ERROR(Pack(CosineProduct(tile_classes_), packed_columns_));
  if (for_weight_gradients) SHARDMAX_RETURN_IF_ERROR(Pack(WeightGradientProduct(update_classes_), packed_rows_));
  return absl::OkStatus();
}

absl::Status TileOperands::Pack(const MatMulShape& product, AlignedBuffer<char>& packed) {
  SHARDMAX_ASSIGN_OR_RETURN(const PackedLayout layout, matmul_.LayoutOfB(product));
  SHARDMAX_RETURN_IF_ERROR(Grow(packed, layout.bytes));
  return matmul_.PackB(product, features_, packed.data());
}

MatMulShape TileOperands::CosineProduct(int64_t classes) const {
  return {.m = classes,
          .n = rows_,
          .k = dim_,
          .lda = dim_,
          .ldb = dim_,
          .ldc = padded_,
          .transpose_b = true,
          .packed_b = classes == tile_classes_,
          .bfloat16 = type_ == OperandType::kBfloat16};
}

MatMulShape TileOperands::WeightGradientProduct(int64_t classes) const {
  return {.m = classes,
          .n = dim_,
          .k = rows_,
          .lda = padded_,
          .ldb = dim_,
          .ldc = dim_,
          .packed_b = classes == update_classes_,
          .bfloat16 = type_ == OperandType::kBfloat16};
}

const void* TileOperands::SecondOperand(const MatMulShape& product) const {
  if (!product.packed_b) return features_;
  return product.transpose_b ? packed_columns_.data() : packed_rows_.data();
}

}  // namespace shardmax
