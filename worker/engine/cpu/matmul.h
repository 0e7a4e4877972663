// Matrix products of one thread, by oneDNN.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/engine.h"

namespace shardmax {

// How the operands of an engine's products are held.
enum class OperandType {
  kFloat32,
  kBfloat16,         // uint16_t; the processor multiplies them natively.
  kRoundedToFloat32  // float32 rounded to bfloat16: the same products where the processor has no instruction for them.
};

// The operands for `precision` on this processor.
OperandType OperandsFor(Precision precision);

// What the products run on, and why on nothing faster: "avx512_core_bf16", "avx2 (no AVX-512 here)".
std::string ProductTarget();

// c [m, n] (+)= a [m, k] b [k, n], row-major with leading dimensions (elements from one row to the next, of the matrix
// as stored). A transposed operand is stored as [k, m] or [n, k]. a and b are of one type; c is float32.
struct MatMulShape {
  int64_t m = 0, n = 0, k = 0;
  int64_t lda = 0, ldb = 0, ldc = 0;
  bool transpose_a = false;
  bool transpose_b = false;
  bool packed_b = false;  // b is in the layout of MatMul::LayoutOfB, not as transpose_b and ldb say.
  bool accumulate = false;
  bool bfloat16 = false;  // a and b are uint16_t.

  friend auto operator<=>(const MatMulShape&, const MatMulShape&) = default;
};

// How oneDNN wants the second operand of a product, to be fastest.
struct PackedLayout {
  enum class Kind {
    kAsStored,  // No other than the one it has.
    kPanels,    // Those of PackPanels or, for bfloat16, PackBfloat16Panels.
    kOther,     // Known to oneDNN alone.
  };
  Kind kind = Kind::kAsStored;
  int64_t bytes = 0;  // Of a packed operand.
};

// Runs products on the calling thread alone, keeping what oneDNN generates for each shape. One thread uses one object.
//
// Errors: Internal: oneDNN refused, with the shape and its reason.
class MatMul {
 public:
  MatMul();
  ~MatMul();
  MatMul(MatMul&&) noexcept;
  MatMul& operator=(MatMul&&) noexcept;

  absl::Status Run(const MatMulShape& shape, const void* a, const void* b, float* c);

  // Has the code for `shape` generated, and whether it was. Run does it the first time.
  absl::Status Prepare(const MatMulShape& shape) { return PlanOf(shape).status(); }
  bool Has(const MatMulShape& shape) const { return plans_.contains(shape); }

  // Of the product `shape`, which has packed_b.
  absl::StatusOr<PackedLayout> LayoutOfB(const MatMulShape& shape);

  // Packs b as stored (transpose_b and ldb of `shape`, which has packed_b) for that product. `packed` has
  // LayoutOfB().bytes.
  absl::Status PackB(const MatMulShape& shape, const void* b, void* packed);

 private:
  struct Plan;
  absl::StatusOr<Plan*> PlanOf(const MatMulShape& shape);

  std::map<MatMulShape, std::unique_ptr<Plan>> plans_;
};

}  // namespace shardmax
