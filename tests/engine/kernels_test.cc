// The kernels of the CPU engine, on every instruction set that this machine has.
#include <gmock/gmock.h>
#include <hwy/targets.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "tests/support/compare.h"
#include "worker/base/aligned_buffer.h"
#include "worker/engine/cpu/tile_kernels.h"

namespace shardmax {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class Kernels : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { Use(GetParam()); }
  void TearDown() override { Use(0); }

  static void Use(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }

  std::vector<float> Draw(int64_t count, float low, float high) {
    std::uniform_real_distribution<float> uniform(low, high);
    std::vector<float> values(count);
    for (float& v : values) v = uniform(random_);
    return values;
  }

  std::mt19937 random_{11};
};

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

TEST_P(Kernels, AccumulateTheNormalizerOverTiles) {
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

TEST_P(Kernels, AddNothingForAnExcludedCosine) {
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

TEST_P(Kernels, KeepCosinesInFloat32AsTheyAre) {
  ProductTile tile;
  tile.products = Draw(tile.classes * tile.columns, -2, 2);
  tile.factors = Draw(tile.classes, 0, 0.5F);
  tile.thresholds = Draw(tile.columns, -1, 1);
  AlignedBuffer<float> kept = *AlignedBuffer<float>::Allocate(tile.classes * tile.columns);
  tile.Accumulate({.t = 1.2}, {.float32 = kept.data()});
  for (int64_t i = 0; i < kept.size(); ++i) EXPECT_EQ(kept.data()[i], tile.Cosine(i)) << i;
}

TEST_P(Kernels, KeepCosinesInInt16OnTheirSideOfTheThreshold) {
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

TEST_P(Kernels, TurnCosinesIntoGradients) {
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

class UpdateRows : public Kernels {
 protected:
  // Three steps on rows of every length around the width of a vector, against the scalar formulas in float64. The
  // floats behind each row must stay.
  void ExpectScalarResult(const OptimizerParams& params) {
    const size_t states = params.StateNames().size();
    for (int64_t n : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 130}) {
      std::vector<float> weights = Draw(n, -1, 1), first(n), second(n);
      std::vector<double> wide(weights.begin(), weights.end()), wide_first(n), wide_second(n);
      for (std::vector<float>* row : {&weights, &first, &second}) row->push_back(42);
      for (int64_t step = 0; step < 3; ++step) {
        const UpdateRule rule = UpdateRule::At(params, 0.1, step);
        const std::vector<float> gradients = Draw(n, -1, 1);
        const float along = 0.75F, inverse_norm = 0.5F;
        UpdateRow(rule, {.gradients = gradients.data(),
                         .along = along,
                         .inverse_norm = inverse_norm,
                         .n = n,
                         .weights = weights.data(),
                         .first = {.float32 = states > 0 ? first.data() : nullptr},
                         .second = {.float32 = states > 1 ? second.data() : nullptr}});
        for (int64_t i = 0; i < n; ++i) {
          const double gradient = static_cast<double>(gradients[i]) - 0.75 * 0.5 * wide[i];
          wide[i] = Scalar(rule, wide[i], gradient, wide_first[i], wide_second[i]);
        }
      }
      for (std::vector<float>* row : {&weights, &first, &second}) {
        EXPECT_EQ(row->back(), 42) << "written behind the row of " << n;
        row->pop_back();
      }
      EXPECT_TRUE(MatricesAgree(weights, wide, n, {1e-6})) << "weights of " << n;
      if (states > 0) {
        EXPECT_TRUE(MatricesAgree(first, wide_first, n, {1e-6})) << "first state of " << n;
      }
      if (states > 1) {
        EXPECT_TRUE(MatricesAgree(second, wide_second, n, {1e-6})) << "second state of " << n;
      }
    }
  }

 private:
  static double Scalar(const UpdateRule& rule, double weight, double gradient, double& first, double& second) {
    const ScalarOps<double> ops;
    if (rule.params.kind == OptimizerKind::kAdamW) {
      return AdamWUpdate(ops, AdamWConstants<ScalarOps<double>>(ops, rule), weight, gradient, first, second);
    }
    const SgdConstants<ScalarOps<double>> k(ops, rule);
    if (rule.params.momentum == 0) return SgdUpdate(ops, k, weight, gradient);
    if (rule.params.nesterov) return SgdMomentumUpdate<true>(ops, k, weight, gradient, first);
    return SgdMomentumUpdate<false>(ops, k, weight, gradient, first);
  }
};

TEST_P(UpdateRows, WithPlainSgd) {
  ExpectScalarResult({.weight_decay = 0.01});
}

TEST_P(UpdateRows, WithMomentum) {
  ExpectScalarResult({.weight_decay = 0.01, .momentum = 0.9});
}

TEST_P(UpdateRows, WithNesterov) {
  ExpectScalarResult({.weight_decay = 0.01, .momentum = 0.9, .nesterov = true});
}

TEST_P(UpdateRows, WithAdamW) {
  ExpectScalarResult({.kind = OptimizerKind::kAdamW, .weight_decay = 0.01, .eps = 1e-3});
}

// State in bfloat16 is what the scalar rounding makes of state in float32, bit for bit, on every instruction set.
TEST_P(UpdateRows, RoundStateToBfloat16AsTheScalarFormulaDoes) {
  for (const OptimizerParams& params : {OptimizerParams{.weight_decay = 0.01, .momentum = 0.9},
                                        OptimizerParams{.kind = OptimizerKind::kAdamW, .eps = 1e-3}}) {
    const bool two = params.StateNames().size() > 1;
    for (const int64_t n : {1, 5, 15, 16, 17, 33, 130}) {
      const UpdateRule rule = UpdateRule::At(params, 0.1, 3);
      const std::vector<float> gradients = Draw(n, -1, 1);
      std::vector<float> weights = Draw(n, -1, 1), first = Draw(n, 0, 1), second = Draw(n, 0, 1);
      std::vector<uint16_t> low_first(n + 1, 42), low_second(n + 1, 42);
      for (int64_t i = 0; i < n; ++i) {
        low_first[i] = RoundToNearestBfloat16(first[i]);
        low_second[i] = RoundToNearestBfloat16(second[i]);
        first[i] = FromBfloat16(low_first[i]);
        second[i] = FromBfloat16(low_second[i]);
      }
      std::vector<float> low_weights = weights;
      const RowUpdate wide = {.gradients = gradients.data(),
                              .along = 0.75F,
                              .inverse_norm = 0.5F,
                              .n = n,
                              .weights = weights.data(),
                              .first = {.float32 = first.data()},
                              .second = {.float32 = two ? second.data() : nullptr}};
      RowUpdate low = wide;
      low.weights = low_weights.data();
      low.first = {.bfloat16 = low_first.data()};
      low.second = {.bfloat16 = two ? low_second.data() : nullptr};
      low.noise = RowNoise(rule.noise, 12345);
      UpdateRow(rule, wide);
      UpdateRow(rule, low);
      EXPECT_EQ(low_weights, weights);
      for (int64_t i = 0; i < n; ++i) {
        const uint32_t noise = ElementNoise(low.noise, static_cast<uint32_t>(i));
        EXPECT_EQ(low_first[i], RoundStochastically(first[i], noise & 0xFFFFU)) << n << ", " << i;
        if (two) {
          EXPECT_EQ(low_second[i], RoundStochastically(second[i], noise >> 16U)) << n << ", " << i;
        }
      }
      EXPECT_EQ(low_first[n], 42) << "written behind the row of " << n;
      EXPECT_EQ(low_second[n], 42) << "written behind the row of " << n;
    }
  }
}

TEST_P(UpdateRows, OfTinyAndHugeWeights) {
  for (const float norm : {1e-30F, 1e-20F, 1e18F, 1e30F}) {
    // The gradient is along the weight but for its second element, and of size 1 / norm.
    std::vector<float> weights = {norm, 0};
    std::vector<float> momentum = {0, 0};
    const std::vector<float> gradients = {3 / norm, 2 / norm};
    UpdateRow(UpdateRule::At({.momentum = 0.9}, 0.1, 0), {.gradients = gradients.data(),
                                                          .along = 3 / norm,
                                                          .inverse_norm = 1 / norm,
                                                          .n = 2,
                                                          .weights = weights.data(),
                                                          .first = {.float32 = momentum.data()},
                                                          .second = {}});
    EXPECT_NEAR(momentum[0] * norm, 0, 1e-6) << norm;
    EXPECT_NEAR(momentum[1] * norm, 2, 1e-6) << norm;
  }
}

std::string NameOf(const testing::TestParamInfo<int64_t>& info) {
  return hwy::TargetName(info.param);
}

INSTANTIATE_TEST_SUITE_P(Targets, Kernels, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()), NameOf);
INSTANTIATE_TEST_SUITE_P(Targets, UpdateRows, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()), NameOf);

}  // namespace
}  // namespace shardmax
