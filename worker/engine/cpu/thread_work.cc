#include "worker/engine/cpu/thread_work.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "worker/base/status.h"

namespace shardmax {
namespace {

// Rows that are normed and converted together, while they are in the first-level cache.
constexpr int64_t kRowsAtATime = 8;

void ConvertRows(MatrixView<const float> rows, OperandType type, char* converted, int64_t first) {
  const int64_t size = rows.rows * rows.cols;
  if (type == OperandType::kBfloat16) {
    ToBfloat16(rows.data, size, reinterpret_cast<uint16_t*>(converted) + first * rows.cols);
  } else if (type == OperandType::kRoundedToFloat32) {
    RoundToBfloat16(rows.data, size, reinterpret_cast<float*>(converted) + first * rows.cols);
  }
}

}  // namespace

absl::Status ThreadWork::Reserve(bool with_feature_gradients) {
  const int64_t tile = plan_.tile_classes;
  SHARDMAX_RETURN_IF_ERROR(Grow(tile_, tile * padded_rows_));
  SHARDMAX_RETURN_IF_ERROR(Grow(factors_, tile));
  SHARDMAX_RETURN_IF_ERROR(Grow(weight_gradients_, plan_.update_classes * dim_));
  SHARDMAX_RETURN_IF_ERROR(Grow(along_weights_, tile));
  SHARDMAX_RETURN_IF_ERROR(Grow(max_logits_, padded_rows_));
  SHARDMAX_RETURN_IF_ERROR(Grow(sums_, padded_rows_));
  SHARDMAX_RETURN_IF_ERROR(Grow(support_vectors_, padded_rows_));
  if (with_feature_gradients) SHARDMAX_RETURN_IF_ERROR(Grow(feature_gradients_, rows_ * dim_));
  if (type_ == OperandType::kBfloat16) SHARDMAX_RETURN_IF_ERROR(Grow(bfloat16_tile_, tile * padded_rows_));
  if (type_ == OperandType::kFloat32) return absl::OkStatus();
  return Grow(converted_weights_, tile * dim_ * static_cast<int64_t>(sizeof(float)));
}

absl::Status ThreadWork::Begin(const TileOperands& operands, bool with_feature_gradients) {
  rows_ = operands.rows();
  padded_rows_ = operands.padded_rows();
  SHARDMAX_RETURN_IF_ERROR(Reserve(with_feature_gradients));
  std::fill_n(max_logits_.data(), padded_rows_, -std::numeric_limits<float>::infinity());
  std::fill_n(sums_.data(), padded_rows_, 0.0);
  std::fill_n(support_vectors_.data(), padded_rows_, 0);
  if (with_feature_gradients) std::fill_n(feature_gradients_.data(), rows_ * dim_, 0.0F);
  return absl::OkStatus();
}

absl::StatusOr<MatrixView<const float>> ThreadWork::GatherRows(MatrixView<const float> weights,
                                                               std::span<const int32_t> classes) {
  constexpr size_t kRowsAhead = 4;
  SHARDMAX_RETURN_IF_ERROR(Grow(gathered_, plan_.tile_classes * dim_));
  for (size_t k = 0; k < classes.size(); ++k) {
    if (k + kRowsAhead < classes.size()) Prefetch({weights.row(classes[k + kRowsAhead])});
    std::copy_n(weights.row(classes[k]).data(), dim_, gathered_.data() + static_cast<int64_t>(k) * dim_);
  }
  const auto rows = static_cast<int64_t>(classes.size());
  std::fill_n(gathered_.data() + rows * dim_, (Padded(rows) - rows) * dim_, 0.0F);
  return MatrixView<const float>{gathered_.data(), rows, dim_};
}

int64_t ThreadWork::Padded(int64_t rows) const {
  const int64_t unit = plan_.update_classes;
  return std::min((rows + unit - 1) / unit * unit, plan_.tile_classes);
}

absl::Status ThreadWork::PrepareSizes(absl::FunctionRef<MatMulShape(int64_t)> product, int64_t most_rows) {
  // The largest is the last.
  if (!gathered() || matmul_.Has(product(most_rows))) return absl::OkStatus();
  for (int64_t size = Padded(1); size < most_rows; size = Padded(size + 1)) {
    SHARDMAX_RETURN_IF_ERROR(matmul_.Prepare(product(size)));
  }
  return matmul_.Prepare(product(most_rows));
}

absl::Status ThreadWork::Run(absl::FunctionRef<MatMulShape(int64_t)> product, int64_t rows, int64_t most_rows,
                             const void* a, const void* b, float* c) {
  SHARDMAX_RETURN_IF_ERROR(PrepareSizes(product, most_rows));
  return matmul_.Run(product(rows), a, b, c);
}

void ThreadWork::SetWeights(MatrixView<const float> weights, float* inverse_norms) {
  weights_ = weights;
  weights_converted_ = inverse_norms != nullptr;
  if (inverse_norms == nullptr) return;
  for (int64_t first = 0; first < weights.rows; first += kRowsAtATime) {
    const auto rows = weights.slice(first, std::min(kRowsAtATime, weights.rows - first));
    InverseNorms(rows, inverse_norms + first);
    ConvertRows(rows, type_, converted_weights_.data(), first);
  }
  const int64_t padding = ProductRows() - weights.rows;
  ConvertRows({weights.data + weights.rows * dim_, padding, dim_}, type_, converted_weights_.data(), weights.rows);
}

const void* ThreadWork::PlainWeights() {
  if (type_ == OperandType::kFloat32) return weights_.data;
  if (!weights_converted_) ConvertRows({weights_.data, ProductRows(), dim_}, type_, converted_weights_.data(), 0);
  weights_converted_ = true;
  return converted_weights_.data();
}

absl::Status ThreadWork::ComputeProducts(const float* inverse_norms, const TileOperands& operands) {
  const auto product = [&](int64_t rows) { return operands.CosineProduct(rows); };
  const void* features = operands.SecondOperand(product(ProductRows()));
  SHARDMAX_RETURN_IF_ERROR(Run(product, ProductRows(), plan_.tile_classes, PlainWeights(), features, tile_.data()));
  if (rows_ != padded_rows_) {
    for (int64_t k = 0; k < weights_.rows; ++k)
      std::fill_n(tile_.data() + k * padded_rows_ + rows_, padded_rows_ - rows_, 0.0F);
  }
  std::copy_n(inverse_norms, weights_.rows, factors_.data());
  return absl::OkStatus();
}

void ThreadWork::ScaleRow(int64_t k) {
  ScaleRows({tile_.data() + k * padded_rows_, 1, padded_rows_}, factors_.data() + k);
  factors_.data()[k] = 1;
}

TileGradients ThreadWork::gradients() {
  if (type_ == OperandType::kBfloat16) return {.bfloat16 = bfloat16_tile_.data()};
  return {.float32 = tile_.data(), .rounded = type_ == OperandType::kRoundedToFloat32};
}

float ThreadWork::GradientAt(int64_t k, int64_t row) const {
  const int64_t at = k * padded_rows_ + row;
  if (type_ != OperandType::kBfloat16) return tile_.data()[at];
  const uint32_t bits = static_cast<uint32_t>(bfloat16_tile_.data()[at]) << 16U;
  float value = 0;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

void ThreadWork::SetGradient(int64_t k, int64_t row, float value) {
  const int64_t at = k * padded_rows_ + row;
  if (type_ == OperandType::kBfloat16) {
    ToBfloat16(&value, 1, bfloat16_tile_.data() + at);
  } else if (type_ == OperandType::kRoundedToFloat32) {
    RoundToBfloat16(&value, 1, tile_.data() + at);
  } else {
    tile_.data()[at] = value;
  }
}

const void* ThreadWork::GradientOperand(int64_t first) const {
  if (type_ == OperandType::kBfloat16) return bfloat16_tile_.data() + first * padded_rows_;
  return tile_.data() + first * padded_rows_;
}

MatMulShape ThreadWork::FeatureGradientProduct(const TileOperands& operands, int64_t classes) const {
  return {.m = operands.rows(),
          .n = dim_,
          .k = classes,
          .lda = padded_rows_,
          .ldb = dim_,
          .ldc = dim_,
          .transpose_a = true,
          .packed_b = classes == plan_.tile_classes,
          .accumulate = true,
          .bfloat16 = type_ == OperandType::kBfloat16};
}

absl::StatusOr<const void*> ThreadWork::PackedWeights(const MatMulShape& product, bool for_products) {
  if (!product.packed_b) return PlainWeights();
  SHARDMAX_ASSIGN_OR_RETURN(const PackedLayout layout, matmul_.LayoutOfB(product));
  if (layout.kind == PackedLayout::Kind::kAsStored) return PlainWeights();
  SHARDMAX_RETURN_IF_ERROR(Grow(packed_weights_, layout.bytes));
  if (layout.kind == PackedLayout::Kind::kOther) {
    SHARDMAX_RETURN_IF_ERROR(matmul_.PackB(product, PlainWeights(), packed_weights_.data()));
  } else if (type_ == OperandType::kBfloat16) {
    auto* plain = for_products ? reinterpret_cast<uint16_t*>(converted_weights_.data()) : nullptr;
    PackBfloat16Panels({weights_.data, product.k, dim_}, reinterpret_cast<uint16_t*>(packed_weights_.data()), plain);
    weights_converted_ = weights_converted_ || for_products;
  } else {
    PackPanels({static_cast<const float*>(PlainWeights()), product.k, dim_},
               reinterpret_cast<float*>(packed_weights_.data()));
  }
  return packed_weights_.data();
}

absl::Status ThreadWork::PackWeights(const TileOperands& operands, bool for_products) {
  SHARDMAX_RETURN_IF_ERROR(
      PrepareSizes([&](int64_t rows) { return FeatureGradientProduct(operands, rows); }, plan_.tile_classes));
  SHARDMAX_ASSIGN_OR_RETURN(packed_operand_,
                            PackedWeights(FeatureGradientProduct(operands, ProductRows()), for_products));
  return absl::OkStatus();
}

absl::Status ThreadWork::AddFeatureGradients(const TileOperands& operands) {
  const int64_t count = weights_.rows, padding = ProductRows() - count;
  if (type_ == OperandType::kBfloat16) {
    std::fill_n(bfloat16_tile_.data() + count * padded_rows_, padding * padded_rows_, uint16_t{0});
  } else {
    std::fill_n(tile_.data() + count * padded_rows_, padding * padded_rows_, 0.0F);
  }
  return Run([&](int64_t rows) { return FeatureGradientProduct(operands, rows); }, ProductRows(), plan_.tile_classes,
             GradientOperand(0), packed_operand_, feature_gradients_.data());
}

absl::Status ThreadWork::MultiplyWeightGradients(int64_t first, int64_t count, const TileOperands& operands) {
  const auto product = [&](int64_t rows) { return operands.WeightGradientProduct(rows); };
  const int64_t room = std::min(plan_.update_classes, plan_.tile_classes - first);
  const int64_t rows = gathered() ? room : count;
  return Run(product, rows, room, GradientOperand(first), operands.SecondOperand(product(rows)),
             weight_gradients_.data());
}

}  // namespace shardmax
