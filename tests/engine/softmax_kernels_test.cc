// Kernels of the CPU engine from cosines to normalisers and gradients, on every instruction set.
#include <gmock/gmock.h>
#include <hwy/targets.h>

#include <cmath>
#include <vector>

#include "tests/engine/kernels_on_targets.h"
#include "tests/support/compare.h"
#include "worker/base/aligned_buffer.h"
#include "worker/engine/cpu/tile_kernels.h"

namespace shardmax {
namespace {

using SoftmaxKernels = Kernels;

struct Tile {
  int64_t classes, columns;
  std::vector<float> cosines;
  std::vector<float> thresholds;
};

// The sum of e^z of one column in float64: its logarithm, and the support vectors.
std::pair<double, int> LogSumOf(const Tile& tile, const LossParams& loss, int64_t column) {
  double largest = -1e300;
  std::vector<double> logits;
  int support_vectors = 0;
  for (int64_t k = 0; k < tile.classes; ++k) {
    const double cosine = tile.cosines[k * tile.columns + column];
    const bool mask = cosine > static_cast<double>(tile.thresholds[column]);
    support_vectors += mask ? 1 : 0;
    logits.push_back(mask ? loss.scale * (loss.t * cosine + loss.t - 1) : loss.scale * cosine);
    largest = std::max(largest, logits.back());
  }
  double sum = 0;
  for (const double z : logits) sum += std::exp(z - largest);
  return {largest + std::log(sum), support_vectors};
}

TEST_P(SoftmaxKernels, AccumulateTheNormalizerOverTiles) {
  for (const LossParams& loss : {LossParams{}, LossParams{.scale = 30, .t = 1.2}, LossParams{.scale = 64, .t = 10}}) {
    Tile whole = {.classes = 71, .columns = 48, .cosines = Draw(71 * 48, -1, 1), .thresholds = Draw(48, -1.2F, 1)};
    std::vector<float> max_logits(48, -kInfinity);
    std::vector<double> sums(48);
    std::vector<int32_t> support_vectors(48);
    const RunningNormalizer running = {max_logits.data(), sums.data(), support_vectors.data()};
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>(0, 40), {40, 1}, {41, 30}}) {
      const std::vector<float> factors(count, 1.0F);
      AccumulateNormalizer({whole.cosines.data() + first * 48, count, 48}, factors.data(), ScaleOf(loss),
                           whole.thresholds.data(), running, {});
    }
    for (int64_t b = 0; b < 48; ++b) {
      const auto [log_sum, count] = LogSumOf(whole, loss, b);
      const double size = loss.scale * (2 * loss.t - 1);  // Of the largest logit, which float32 rounds.
      EXPECT_NEAR(static_cast<double>(max_logits[b]) + std::log(sums[b]), log_sum, 3e-7 * size) << "column " << b;
      EXPECT_EQ(support_vectors[b], count) << "column " << b;
    }
  }
}

// The normaliser of rows of 16 cosines, each added as a tile of its own, with a threshold that all classes exceed.
struct OneClassTiles {
  explicit OneClassTiles(const LossParams& loss) : loss(loss) {}

  void Add(const std::vector<float>& cosines) {
    const float factor = 1;
    AccumulateNormalizer({cosines.data(), 1, 16}, &factor, ScaleOf(loss), thresholds.data(),
                         {max_logits.data(), sums.data(), support_vectors.data()}, {});
  }

  // log of the sum of e^z of column b.
  double LogSum(int64_t b) const { return static_cast<double>(max_logits[b]) + std::log(sums[b]); }

  LossParams loss;
  std::vector<float> thresholds = std::vector<float>(16, -2.0F);
  std::vector<float> max_logits = std::vector<float>(16, -kInfinity);
  std::vector<double> sums = std::vector<double>(16);
  std::vector<int32_t> support_vectors = std::vector<int32_t>(16);
};

TEST_P(SoftmaxKernels, AddNothingForAnExcludedCosine) {
  // Whatever the scale, and also where a tile holds nothing else.
  for (const double scale : {1e-3, 1.0, 23.7, 30.0, 32.0, 38.4, 1e4}) {
    for (const double t : {1.0, 1.2, 1.7, 100.0}) {
      SCOPED_TRACE(testing::Message() << "scale " << scale << ", t " << t);
      const std::vector<float> cosines = Draw(16, -1, 1);
      const std::vector<float> excluded(16, kExcludedCosine);
      OneClassTiles alone({.scale = scale, .t = t});
      alone.Add(cosines);
      OneClassTiles before = OneClassTiles(alone.loss), after = OneClassTiles(alone.loss);
      before.Add(excluded);
      EXPECT_THAT(before.sums, testing::Each(0));
      before.Add(cosines);
      after.Add(cosines);
      after.Add(excluded);
      for (const OneClassTiles* tiles : {&before, &after}) {
        for (int64_t b = 0; b < 16; ++b)
          EXPECT_NEAR(tiles->LogSum(b), alone.LogSum(b), 1e-6 * std::max(1.0, scale * t));
        EXPECT_THAT(tiles->support_vectors, testing::Each(1));
      }
    }
  }
}

// A tile of products with a factor for each row, whose thresholds lie among the cosines.
struct ProductTile {
  int64_t classes = 70, columns = 48;
  std::vector<float> products, factors, thresholds;

  float Cosine(int64_t i) const { return products[i] * factors[i / columns]; }

  void Accumulate(const LossParams& loss, const KeptTile& kept) const {
    std::vector<float> max_logits(columns, -kInfinity);
    std::vector<double> sums(columns);
    std::vector<int32_t> support_vectors(columns);
    AccumulateNormalizer({products.data(), classes, columns}, factors.data(), ScaleOf(loss), thresholds.data(),
                         {max_logits.data(), sums.data(), support_vectors.data()}, kept);
  }
};

TEST_P(SoftmaxKernels, KeepCosinesInFloat32AsTheyAre) {
  ProductTile tile;
  tile.products = Draw(tile.classes * tile.columns, -2, 2);
  tile.factors = Draw(tile.classes, 0, 0.5F);
  tile.thresholds = Draw(tile.columns, -1, 1);
  AlignedBuffer<float> kept = *AlignedBuffer<float>::Allocate(tile.classes * tile.columns);
  tile.Accumulate({.t = 1.2}, {.float32 = kept.data()});
  for (int64_t i = 0; i < kept.size(); ++i) EXPECT_EQ(kept.data()[i], tile.Cosine(i)) << i;
}

TEST_P(SoftmaxKernels, KeepCosinesInInt16OnTheirSideOfTheThreshold) {
  ProductTile tile;
  tile.products = Draw(tile.classes * tile.columns, -2, 2);
  tile.factors = Draw(tile.classes, 0, 0.5F);
  std::vector<int32_t> int16_thresholds;
  for (int64_t b = 0; b < tile.columns; ++b) {
    // Between two steps, at many places of them; then half of the cosines within less than a step of it.
    const float threshold = (static_cast<float>(b * 600 - 14000) + static_cast<float>(b) / 48) * kInt16Step;
    tile.thresholds.push_back(threshold);
    int16_thresholds.push_back(static_cast<int32_t>(std::floor(threshold * 32767)));
    for (int64_t k = 0; k < tile.classes; k += 2) {
      tile.factors[k] = 1;
      tile.products[k * tile.columns + b] = threshold + (static_cast<float>(k) / 35 - 1) * 0.9F * kInt16Step;
    }
  }
  std::vector<int16_t> kept(tile.classes * tile.columns);
  tile.Accumulate({.t = 1.2}, {.int16 = kept.data(), .int16_thresholds = int16_thresholds.data()});
  for (size_t i = 0; i < kept.size(); ++i) {
    const float cosine = tile.Cosine(static_cast<int64_t>(i));
    EXPECT_NEAR(static_cast<float>(kept[i]) * kInt16Step, cosine, 1.01F * kInt16Step) << i;
    EXPECT_EQ(kept[i] > int16_thresholds[i % 48], cosine > tile.thresholds[i % 48]) << i << ": " << cosine;
  }
}

TEST_P(SoftmaxKernels, TurnCosinesIntoGradients) {
  const LossParams loss = {.scale = 30, .t = 1.2};
  const ClassLogitScale scale = ScaleOf(loss);
  const int64_t classes = 9, columns = 32;
  const std::vector<float> cosines = Draw(classes * columns, -1, 1);
  const std::vector<float> thresholds = Draw(columns, -1, 1);
  const std::vector<float> shifts = Draw(columns, 20, 50);
  const std::vector<float> row_scales = Draw(columns, 0, 0.1F);
  const std::vector<float> inverse_norms = Draw(classes, 0.5F, 3);
  std::vector<float> offsets;
  for (const float shift : shifts) offsets.push_back(static_cast<float>(scale.support_vector_offset - shift));

  std::vector<double> expected(cosines.size());
  std::vector<double> expected_along(classes);
  for (int64_t i = 0; i < classes * columns; ++i) {
    const int64_t k = i / columns, b = i % columns;
    const ShiftedLogit<double> row = {thresholds[b], scale.plain_slope, -shifts[b], scale.support_vector_slope,
                                      scale.support_vector_offset - shifts[b]};
    expected[i] = ClassCosineGradient(ScalarOps<double>(), row, static_cast<double>(row_scales[b]),
                                      static_cast<double>(cosines[i])) *
                  static_cast<double>(inverse_norms[k]);
    expected_along[k] += expected[i] * static_cast<double>(cosines[i]);
  }

  const BackwardColumns row_constants = {thresholds.data(), shifts.data(), offsets.data(), row_scales.data()};
  std::vector<float> along(classes, -1.0F);
  std::vector<float> kept = cosines;
  std::vector<float> gradients(cosines.size());
  CosineGradients(classes, columns, {.kept = {.float32 = kept.data()}}, scale, row_constants, inverse_norms.data(),
                  {.float32 = gradients.data()}, along.data());
  EXPECT_TRUE(MatricesAgree(gradients, expected, columns, {5e-6}));
  EXPECT_TRUE(MatricesAgree(along, expected_along, classes, {5e-6}));

  // In place, from products with a factor for each row.
  std::vector<float> tile = cosines;
  const std::vector<float> factors(classes, 0.5F);
  for (float& product : tile) product *= 2;
  CosineGradients(classes, columns, {.products = tile.data(), .factors = factors.data()}, scale, row_constants,
                  inverse_norms.data(), {.float32 = tile.data()}, along.data());
  EXPECT_EQ(tile, gradients);

  std::vector<uint16_t> bits(cosines.size());
  std::vector<uint16_t> expected_bits(cosines.size());
  CosineGradients(classes, columns, {.kept = {.float32 = kept.data()}}, scale, row_constants, inverse_norms.data(),
                  {.bfloat16 = bits.data()}, along.data());
  ToBfloat16(gradients.data(), classes * columns, expected_bits.data());
  EXPECT_EQ(bits, expected_bits);
}

INSTANTIATE_TEST_SUITE_P(Targets, SoftmaxKernels, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()), NameOfTarget);

}  // namespace
}  // namespace shardmax
