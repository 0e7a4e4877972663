// Matrix products of one thread, by oneDNN.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

#include "absl/status/status.h"
#include "worker/engine/engine.h"

namespace shardmax {

// c [m, n] (+)= a [m, k] b [k, n], row-major with leading dimensions (elements from one row to the next, of the matrix
// as stored). A transposed operand is stored as [k, m] or [n, k]. a and b are float32, or bfloat16 (uint16_t) for
// kBfloat16; c is float32.
struct MatMulShape {
  int64_t m = 0, n = 0, k = 0;
  int64_t lda = 0, ldb = 0, ldc = 0;
  bool transpose_a = false;
  bool transpose_b = false;
  bool accumulate = false;
  Precision precision = Precision::kFloat32;

  friend auto operator<=>(const MatMulShape&, const MatMulShape&) = default;
};

// Runs products on the calling thread alone, keeping what oneDNN generates for each shape. One thread uses one object.
class MatMul {
 public:
  MatMul();
  ~MatMul();
  MatMul(MatMul&&) noexcept;
  MatMul& operator=(MatMul&&) noexcept;

  // Internal: oneDNN refused, with the shape and its reason.
  absl::Status Run(const MatMulShape& shape, const void* a, const void* b, float* c);

 private:
  struct Plan;
  std::map<MatMulShape, std::unique_ptr<Plan>> plans_;
};

}  // namespace shardmax
