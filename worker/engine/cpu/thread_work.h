// What one thread of the CPU engine needs for its tiles.
#pragma once

#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/base/aligned_buffer.h"
#include "worker/engine/cpu/matmul.h"
#include "worker/engine/cpu/tile_kernels.h"
#include "worker/engine/cpu/tile_operands.h"
#include "worker/engine/cpu/tile_plan.h"

namespace shardmax {

// Buffers and products of one thread. Sizes grow with the batch and are kept.
class ThreadWork {
 public:
  ThreadWork(const TilePlan& plan, int64_t dim, OperandType type) : plan_(plan), dim_(dim), type_(type) {}

  // Makes room for the batch, and sets what is added up over tiles to neutral.
  absl::Status Begin(const TileOperands& operands, bool with_feature_gradients);

  // Copies rows `classes` of `weights`, at most T, for SetWeights. Valid until the next call. Products of them are
  // padded to a few sizes, so that the last tile of a step, which has other classes each time, brings no new shape:
  // oneDNN generates code for each.
  absl::StatusOr<MatrixView<const float>> GatherRows(MatrixView<const float> weights, std::span<const int32_t> classes);

  // Takes the weights [n, D] of the next tile, n <= T. They stay the caller's. With `inverse_norms` [n] sets those
  // first: one pass over the weights, which also brings them into the caches.
  void SetWeights(MatrixView<const float> weights, float* inverse_norms);

  // products() = weights x features^T [n, P], columns beyond B zero; factors() [n] = inverse_norms: cosines are
  // products times the factor of their row.
  absl::Status ComputeProducts(const float* inverse_norms, const TileOperands& operands);

  // Turns row k of products() into cosines, with a factor of 1.
  void ScaleRow(int64_t k);

  // Where dloss/dcos / |w| [n, P] goes. Products are overwritten.
  TileGradients gradients();
  // An element of it, once all are there, and setting one.
  float GradientAt(int64_t k, int64_t row) const;
  void SetGradient(int64_t k, int64_t row, float value);

  // Packs the weights for AddFeatureGradients. Before all products, it brings them into the caches in one stream. With
  // `for_products` converts them for ComputeProducts on the way.
  absl::Status PackWeights(const TileOperands& operands, bool for_products);

  // feature_gradients() += gradients^T x the weights of PackWeights.
  absl::Status AddFeatureGradients(const TileOperands& operands);

  // weight_gradients() [count, D] = gradients of the classes from `first` of the tile on x features.
  absl::Status MultiplyWeightGradients(int64_t first, int64_t count, const TileOperands& operands);

  int64_t update_classes() const { return plan_.update_classes; }
  MatrixView<float> products() { return {tile_.data(), weights_.rows, padded_rows_}; }
  float* factors() { return factors_.data(); }
  float* weight_gradients() { return weight_gradients_.data(); }
  float* feature_gradients() { return feature_gradients_.data(); }  // [B, D]
  float* along_weights() { return along_weights_.data(); }          // [T]
  RunningNormalizer running() { return {max_logits_.data(), sums_.data(), support_vectors_.data()}; }
  float* nearest_cosines() { return max_logits_.data(); }         // [P], from -inf
  int32_t* nearest_classes() { return support_vectors_.data(); }  // [P], from 0

 private:
  absl::Status Reserve(bool with_feature_gradients);
  bool gathered() const { return weights_.data != nullptr && weights_.data == gathered_.data(); }
  // `rows` of gathered weights with their padding, and the rows of the tile's products.
  int64_t Padded(int64_t rows) const;
  int64_t ProductRows() const { return gathered() ? Padded(weights_.rows) : weights_.rows; }
  // Of gathered weights: the products of all sizes up to `most_rows`, when one comes first.
  absl::Status PrepareSizes(absl::FunctionRef<MatMulShape(int64_t)> product, int64_t most_rows);
  // Multiplies product(rows), whose sizes are prepared.
  absl::Status Run(absl::FunctionRef<MatMulShape(int64_t)> product, int64_t rows, int64_t most_rows, const void* a,
                   const void* b, float* c);
  MatMulShape FeatureGradientProduct(const TileOperands& operands, int64_t classes) const;
  // The weights as operands, row-major; converts them the first time.
  const void* PlainWeights();
  // The weights as second operand of `product`.
  absl::StatusOr<const void*> PackedWeights(const MatMulShape& product, bool for_products);
  const void* GradientOperand(int64_t first) const;

  TilePlan plan_;
  int64_t dim_;
  OperandType type_;
  MatMul matmul_;
  int64_t rows_ = 0;
  int64_t padded_rows_ = 0;
  MatrixView<const float> weights_;
  bool weights_converted_ = false;
  const void* packed_operand_ = nullptr;  // Of PackWeights.
  AlignedBuffer<float> tile_;
  AlignedBuffer<float> gathered_;
  AlignedBuffer<uint16_t> bfloat16_tile_;
  AlignedBuffer<float> factors_;
  AlignedBuffer<float> weight_gradients_;
  AlignedBuffer<float> feature_gradients_;
  AlignedBuffer<float> along_weights_;
  AlignedBuffer<char> converted_weights_;
  AlignedBuffer<char> packed_weights_;
  AlignedBuffer<float> max_logits_;
  AlignedBuffer<double> sums_;
  AlignedBuffer<int32_t> support_vectors_;
};

}  // namespace shardmax
