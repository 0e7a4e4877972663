#include "worker/engine/cpu/matmul.h"

#include <gmock/gmock.h>

#include <random>
#include <vector>

#include "tests/support/compare.h"
#include "worker/engine/cpu/tile_kernels.h"

namespace shardmax {
namespace {

struct Operands {
  std::vector<float> a, b, c;
};

// Whole numbers, which float32 and bfloat16 products keep exactly.
Operands DrawOperands(const MatMulShape& shape) {
  std::mt19937 random(static_cast<uint32_t>(shape.m * 100 + shape.n * 10 + shape.k));
  std::uniform_int_distribution<int> digit(-3, 3);
  const auto draw = [&](int64_t size) {
    std::vector<float> values(size);
    for (float& v : values) v = static_cast<float>(digit(random));
    return values;
  };
  return {.a = draw((shape.transpose_a ? shape.k : shape.m) * shape.lda),
          .b = draw((shape.transpose_b ? shape.n : shape.k) * shape.ldb),
          .c = draw(shape.m * shape.ldc)};
}

std::vector<float> Product(const MatMulShape& shape, const Operands& operands) {
  std::vector<float> c = operands.c;
  for (int64_t i = 0; i < shape.m; ++i) {
    for (int64_t j = 0; j < shape.n; ++j) {
      float sum = shape.accumulate ? c[i * shape.ldc + j] : 0;
      for (int64_t k = 0; k < shape.k; ++k) {
        const float a = operands.a[shape.transpose_a ? k * shape.lda + i : i * shape.lda + k];
        const float b = operands.b[shape.transpose_b ? j * shape.ldb + k : k * shape.ldb + j];
        sum += a * b;
      }
      c[i * shape.ldc + j] = sum;
    }
  }
  return c;
}

// Where the processor has no bfloat16 products the engine asks for none.
std::vector<bool> Bfloat16Choices() {
  if (OperandsFor(Precision::kBfloat16) == OperandType::kBfloat16) return {false, true};
  return {false};
}

std::vector<uint16_t> Bfloat16(const std::vector<float>& values) {
  std::vector<uint16_t> bits(values.size());
  ToBfloat16(values.data(), static_cast<int64_t>(values.size()), bits.data());
  return bits;
}

void ExpectProduct(MatMul& matmul, const MatMulShape& shape) {
  const Operands operands = DrawOperands(shape);
  std::vector<float> c = operands.c;
  absl::Status status;
  if (shape.bfloat16) {
    status = matmul.Run(shape, Bfloat16(operands.a).data(), Bfloat16(operands.b).data(), c.data());
  } else {
    status = matmul.Run(shape, operands.a.data(), operands.b.data(), c.data());
  }
  EXPECT_TRUE(status.ok()) << status;
  // What lies between the columns of c must stay, so the whole of it is compared.
  EXPECT_TRUE(MatricesAgree(c, Product(shape, operands), shape.ldc, {1e-7}))
      << "m " << shape.m << ", n " << shape.n << ", k " << shape.k << ", transposed " << shape.transpose_a
      << shape.transpose_b << ", accumulate " << shape.accumulate << ", bfloat16 " << shape.bfloat16;
}

// Where oneDNN packs into panels, ours are the same bytes.
void ExpectPanels(const PackedLayout& layout, const MatMulShape& shape, const std::vector<float>& b,
                  const std::vector<char>& packed) {
  if (layout.kind != PackedLayout::Kind::kPanels || shape.transpose_b) return;
  std::vector<char> ours(packed.size());
  if (shape.bfloat16) {
    PackBfloat16Panels({b.data(), shape.k, shape.n}, reinterpret_cast<uint16_t*>(ours.data()));
  } else {
    PackPanels({b.data(), shape.k, shape.n}, reinterpret_cast<float*>(ours.data()));
  }
  EXPECT_EQ(ours, packed) << "n " << shape.n << ", k " << shape.k << ", bfloat16 " << shape.bfloat16;
}

TEST(MatMul, MultipliesAnyShapeWithGapsBetweenRows) {
  MatMul matmul;
  for (const int64_t m : {1, 3, 64}) {
    for (const int64_t n : {1, 5, 33}) {
      for (const int64_t k : {1, 2, 31}) {
        for (const bool bfloat16 : Bfloat16Choices()) {
          // The three products of the engine: cosines, gradients of weights, gradients of features.
          ExpectProduct(
              matmul,
              {.m = m, .n = n, .k = k, .lda = k, .ldb = k, .ldc = n + 3, .transpose_b = true, .bfloat16 = bfloat16});
          ExpectProduct(matmul, {.m = m, .n = n, .k = k, .lda = k + 5, .ldb = n, .ldc = n, .bfloat16 = bfloat16});
          ExpectProduct(matmul, {.m = m,
                                 .n = n,
                                 .k = k,
                                 .lda = m + 5,
                                 .ldb = n,
                                 .ldc = n,
                                 .transpose_a = true,
                                 .accumulate = true,
                                 .bfloat16 = bfloat16});
        }
      }
    }
  }
}

TEST(MatMul, MultipliesByAPackedOperand) {
  MatMul matmul;
  for (const bool bfloat16 : Bfloat16Choices()) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>(256, 64), {33, 31}, {128, 32}}) {
      for (const bool transpose_b : {false, true}) {
        const MatMulShape shape = {.m = 5,
                                   .n = n,
                                   .k = k,
                                   .lda = k,
                                   .ldb = transpose_b ? k : n,
                                   .ldc = n,
                                   .transpose_b = transpose_b,
                                   .packed_b = true,
                                   .bfloat16 = bfloat16};
        const Operands operands = DrawOperands(shape);
        const auto layout = matmul.LayoutOfB(shape);
        ASSERT_TRUE(layout.ok()) << layout.status();
        std::vector<char> packed(layout->bytes);
        std::vector<float> c = operands.c;
        absl::Status status;
        if (bfloat16) {
          ASSERT_TRUE(matmul.PackB(shape, Bfloat16(operands.b).data(), packed.data()).ok());
          status = matmul.Run(shape, Bfloat16(operands.a).data(), packed.data(), c.data());
        } else {
          ASSERT_TRUE(matmul.PackB(shape, operands.b.data(), packed.data()).ok());
          status = matmul.Run(shape, operands.a.data(), packed.data(), c.data());
        }
        EXPECT_TRUE(status.ok()) << status;
        EXPECT_TRUE(MatricesAgree(c, Product(shape, operands), n, {1e-7})) << n << ", " << k << ", " << transpose_b;
        ExpectPanels(*layout, shape, operands.b, packed);
      }
    }
  }
}

TEST(MatMul, ReusesAShapeWithOtherOperands) {
  MatMul matmul;
  const MatMulShape shape = {.m = 1, .n = 1, .k = 1, .lda = 1, .ldb = 1, .ldc = 1};
  for (const float a : {2.0F, 5.0F}) {
    const float b = 3;
    float c = 0;
    ASSERT_TRUE(matmul.Run(shape, &a, &b, &c).ok());
    EXPECT_EQ(c, 3 * a);
  }
}

TEST(MatMul, SaysWhichShapeTheLibraryRefuses) {
  MatMul matmul;
  float c = 0;
  const absl::Status status = matmul.Run({.m = -2, .n = 3, .k = 4, .lda = 4, .ldb = 3, .ldc = 3}, &c, &c, &c);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("oneDNN matmul [-2, 4] x [4, 3]: "));
}

}  // namespace
}  // namespace shardmax
