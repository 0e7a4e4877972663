// Matrix products on a device, by cuBLASLt.
#pragma once

#include <cublasLt.h>

#include <compare>
#include <cstdint>
#include <map>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/base/device_buffer.h"
#include "worker/engine/engine.h"

namespace shardmax::cuda {

// c [m, n] (+)= a [m, k] b [k, n], row-major with leading dimensions (elements from one row to the next, of the matrix
// as stored). A transposed operand is stored as [k, m] or [n, k].
struct GemmShape {
  int64_t m = 0, n = 0, k = 0;
  int64_t lda = 0, ldb = 0, ldc = 0;
  bool transpose_a = false;
  bool transpose_b = false;
  bool accumulate = false;

  friend auto operator<=>(const GemmShape&, const GemmShape&) = default;
};

// Products in one precision: operands are float32, and multiplied as such (no TF32), or bfloat16; sums and results are
// float32. What cuBLASLt chooses for a shape is kept, so a shape that was seen before allocates nothing.
class Gemm {
 public:
  static absl::StatusOr<Gemm> Make(Precision precision);
  ~Gemm();
  Gemm(Gemm&& other) noexcept;
  Gemm& operator=(Gemm&&) = delete;

  // Enqueues a product. Matrices are in device memory, aligned to 16 bytes; bfloat16 ones want leading dimensions that
  // are multiples of 8. One stream at a time: the products share a workspace.
  absl::Status Run(const GemmShape& shape, const void* a, const void* b, float* c, cudaStream_t stream);

 private:
  struct Plan;
  Gemm() = default;
  absl::StatusOr<Plan*> PlanOf(const GemmShape& shape);

  Precision precision_ = Precision::kFloat32;
  cublasLtHandle_t handle_ = nullptr;
  DeviceBuffer<char> workspace_;
  std::map<GemmShape, std::unique_ptr<Plan>> plans_;
};

}  // namespace shardmax::cuda
