// Kernels of the CPU engine on rows of weights and features, on every instruction set.
#include <gmock/gmock.h>
#include <hwy/targets.h>

#include <bit>
#include <cmath>
#include <vector>

#include "tests/engine/kernels_on_targets.h"
#include "tests/support/compare.h"
#include "worker/base/aligned_buffer.h"
#include "worker/engine/cpu/tile_kernels.h"

namespace shardmax {
namespace {

TEST_P(Kernels, AreThoseOfTheTarget) {
  EXPECT_EQ(KernelTarget(), hwy::TargetName(GetParam()));
}

TEST_P(Kernels, InvertNormsOfAnyLengthAndSize) {
  for (const int64_t dim : {1, 3, 15, 16, 17, 31, 32, 33, 47, 64, 130}) {
    for (const float size : {1e-36F, 1e-20F, 1e-10F, 1.0F, 1e10F, 1e18F, 1e30F, 1e36F}) {
      const std::vector<float> row = Draw(dim, 0.1F * size, size);
      long double square = 0;
      for (const float w : row) square += static_cast<long double>(w) * w;
      float inverse = 0;
      InverseNorms({row.data(), 1, dim}, &inverse);
      const double expected = static_cast<double>(1 / std::sqrt(square));
      EXPECT_NEAR(inverse, expected, 1e-6 * expected) << "dim " << dim << ", size " << size;
    }
  }
}

TEST_P(Kernels, InvertTheNormOfARowWithoutDirectionToZero) {
  std::vector<float> rows(2 * 33, 0.0F);
  rows[40] = 1e-39F;
  float inverse[] = {1, 1};
  InverseNorms({rows.data(), 2, 33}, inverse);
  EXPECT_THAT(inverse, testing::ElementsAre(0, 0));
}

TEST_P(Kernels, MakeANormThatIsNotFiniteShow) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
    for (const int64_t where : {0, 20, 32}) {
      std::vector<float> row(33, 1.0F);
      row[where] = bad;
      float inverse = 0;
      InverseNorms({row.data(), 1, 33}, &inverse);
      EXPECT_TRUE(std::isnan(inverse)) << bad << " at " << where;
    }
  }
  const std::vector<float> too_long(33, 2e38F);
  float inverse = 0;
  InverseNorms({too_long.data(), 1, 33}, &inverse);
  EXPECT_TRUE(std::isnan(inverse));
}

TEST_P(Kernels, RoundToBfloat16WithTiesToEven) {
  const std::vector<std::pair<float, uint16_t>> table = {
      {0.0F, 0x0000},
      {-0.0F, 0x8000},
      {1.0F, 0x3F80},
      {-2.5F, 0xC020},
      {0x1.01p0F, 0x3F80},  // A tie: to even, down.
      {0x1.03p0F, 0x3F82},  // A tie: to even, up.
      {0x1.010002p0F, 0x3F81},
      {kInfinity, 0x7F80},
      {-kInfinity, 0xFF80},
      {1e-45F, 0x0000},
      {std::numeric_limits<float>::max(), 0x7F80},
  };
  // Through whole vectors and through the rest.
  for (const int64_t copies : {1, 3, 16}) {
    std::vector<float> in;
    std::vector<uint16_t> expected;
    for (int64_t i = 0; i < copies; ++i) {
      for (const auto& [value, bits] : table) {
        in.push_back(value);
        expected.push_back(bits);
      }
    }
    std::vector<uint16_t> out(in.size());
    ToBfloat16(in.data(), static_cast<int64_t>(in.size()), out.data());
    EXPECT_EQ(out, expected);
  }
}

TEST_P(Kernels, ScaleRowsOfATile) {
  std::vector<float> tile = Draw(3 * 32, -1, 1);
  const std::vector<float> before = tile;
  const std::vector<float> factors = {2, 0, -0.5F};
  ScaleRows({tile.data(), 3, 32}, factors.data());
  for (int64_t i = 0; i < 3 * 32; ++i) EXPECT_EQ(tile[i], before[i] * factors[i / 32]) << i;
}

TEST_P(Kernels, PackRowsIntoPanels) {
  const int64_t rows = 6, cols = 128;
  const std::vector<float> values = Draw(rows * cols, -1, 1);
  std::vector<float> panels(values.size());
  std::vector<uint16_t> bits(values.size()), expected_bits(values.size());
  PackPanels({values.data(), rows, cols}, panels.data());
  PackBfloat16Panels({values.data(), rows, cols}, bits.data());
  ToBfloat16(values.data(), rows * cols, expected_bits.data());
  std::vector<uint16_t> again(values.size()), plain(values.size());
  PackBfloat16Panels({values.data(), rows, cols}, again.data(), plain.data());
  EXPECT_EQ(again, bits);
  EXPECT_EQ(plain, expected_bits);
  for (int64_t k = 0; k < rows; ++k) {
    for (int64_t j = 0; j < cols; ++j) {
      const int64_t panel = j / 64 * rows * 64;
      EXPECT_EQ(panels[panel + k * 64 + j % 64], values[k * cols + j]) << k << ", " << j;
      EXPECT_EQ(bits[panel + k / 2 * 128 + j % 64 * 2 + k % 2], expected_bits[k * cols + j]) << k << ", " << j;
    }
  }
}

TEST_P(Kernels, RoundLikeBfloat16InFloat32) {
  const std::vector<float> values = Draw(37, -1e3F, 1e3F);
  std::vector<uint16_t> bits(values.size());
  std::vector<float> rounded(values.size());
  ToBfloat16(values.data(), 37, bits.data());
  RoundToBfloat16(values.data(), 37, rounded.data());
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(rounded[i]), static_cast<uint32_t>(bits[i]) << 16U) << values[i];
  }
}

TEST_P(Kernels, FindTheNearestClassWithTiesToTheLower) {
  std::vector<float> best(16, -kInfinity);
  std::vector<int32_t> classes(16, -1);
  std::vector<float> tile(3 * 16, 0.25F);
  tile[1 * 16 + 4] = 0.5F;
  tile[2 * 16 + 4] = 0.5F;
  tile[2 * 16 + 5] = 0.75F;
  UpdateNearest({tile.data(), 3, 16}, 100, best.data(), classes.data());
  EXPECT_EQ(classes[0], 100);
  EXPECT_EQ(classes[4], 101);
  EXPECT_EQ(classes[5], 102);
  UpdateNearest({tile.data(), 3, 16}, 200, best.data(), classes.data());
  EXPECT_EQ(classes[0], 100);
  EXPECT_EQ(classes[4], 101);
  EXPECT_EQ(best[5], 0.75F);
}

INSTANTIATE_TEST_SUITE_P(Targets, Kernels, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()), NameOfTarget);

}  // namespace
}  // namespace shardmax
