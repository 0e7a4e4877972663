// Where formulas divide by nothing, overflow or cancel.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "tests/support/compare.h"
#include "tests/support/head_run.h"
#include "tests/support/loss_cases.h"

namespace shardmax {
namespace {

constexpr EngineKind kEngines[] = {EngineKind::kReference, EngineKind::kCpu};

void ExpectFinite(const HeadOutcome& outcome) {
  const auto is_finite = [](float x) { return std::isfinite(x); };
  EXPECT_TRUE(std::isfinite(outcome.loss())) << outcome.loss();
  EXPECT_TRUE(std::isfinite(outcome.steps.back().label_cosine));
  EXPECT_TRUE(std::all_of(outcome.feature_gradients.begin(), outcome.feature_gradients.end(), is_finite));
  for (const auto& [name, tensor] : outcome.tensors) {
    EXPECT_TRUE(std::all_of(tensor.begin(), tensor.end(), is_finite)) << name;
  }
}

void SetFeature(HeadProblem& problem, int64_t row, int64_t from_class, float factor) {
  for (int64_t i = 0; i < problem.dim; ++i) {
    problem.features[row * problem.dim + i] = factor * problem.weights[from_class * problem.dim + i];
  }
}

void CopyClass(HeadProblem& problem, int64_t from, int64_t to) {
  std::copy_n(problem.weights.begin() + from * problem.dim, problem.dim, problem.weights.begin() + to * problem.dim);
}

// Rows that are 1 or -1 times the weight of their label, some of whose classes stand twice.
HeadProblem EndsProblem(int64_t dim) {
  HeadProblem problem = MakeHeadProblem(1, 12, dim, 10);
  CopyClass(problem, 0, 9);
  CopyClass(problem, 1, 2);
  for (int64_t b = 0; b < 12; ++b) {
    problem.labels[b] = static_cast<int32_t>(b / 2);
    SetFeature(problem, b, b / 2, b % 2 == 0 ? 1.0F : -3.0F);
  }
  return problem;
}

// Every loss with each extension.
std::vector<LossCase> ExtendedCases() {
  std::vector<LossCase> cases;
  for (const LossCase& c : AllLossCases()) {
    for (const Extension extension : {Extension::kMonotone, Extension::kEasy, Extension::kLinear}) {
      cases.push_back(c);
      cases.back().params.extension = extension;
      cases.back().name += " extension " + std::to_string(static_cast<int>(extension));
    }
  }
  return cases;
}

TEST(Edges, CosinesOfOneAndMinusOneAreFinite) {
  for (const LossCase& c : ExtendedCases()) {
    SCOPED_TRACE(c.name);
    for (const int64_t dim : {1, 7}) {
      for (const EngineKind engine : kEngines) {
        for (const int ranks : {1, 3}) {
          const HeadProblem problem = EndsProblem(dim);
          ExpectFinite(RunHead({problem, problem, problem}, {.engine = engine, .ranks = ranks, .loss = c.params}));
        }
      }
    }
  }
}

TEST(Edges, CosinesOfOneAndMinusOneHaveTheLossOfTheFormula) {
  for (const LossCase& c : ExtendedCases()) {
    // Equal cosines are decided by rounding, which matters where the threshold is the cosine itself.
    if (c.params.t != 1 && c.params.m1 == 1 && c.params.m2 == 0 && c.params.m3 == 0) continue;
    if (c.params.t != 1 && c.params.extension == Extension::kEasy) continue;
    SCOPED_TRACE(c.name);
    const HeadProblem problem = EndsProblem(7);
    const DenseLossResult expected = DenseLoss(DenseSpecOf(c.params), problem.Dense());
    for (const EngineKind engine : kEngines) {
      // acos turns the rounding of a float32 cosine at 1 into an angle of 3e-4.
      EXPECT_NEAR(RunHead(problem, {.engine = engine, .loss = c.params}).loss(), expected.loss,
                  1e-3 * c.params.scale * c.params.m1 * (1 + expected.loss / 50));
    }
  }
}

TEST(Edges, LargeExponentsAreFiniteAndRight) {
  const HeadProblem random = MakeHeadProblem(2, 20, 9, 40);
  for (const double scale : {64.0, 1e4}) {
    for (const double t : {1.0, 1.2, 2.0, 10.0, 100.0}) {
      for (const double m3 : {0.0, 0.35}) {
        for (const double keep : {1.0, 0.5}) {
          const LossParams loss = {.scale = scale, .m3 = m3, .t = t, .keep = keep};
          SCOPED_TRACE(testing::Message() << "scale " << scale << ", t " << t << ", m3 " << m3 << ", keep " << keep);
          HeadProblem problem = random;
          AvoidThresholds(loss, 1e-5, problem);
          const DenseLossResult expected = DenseLoss(DenseSpecOf(loss), problem.Dense());
          const HeadOutcome reference = RunHead(problem, {.loss = loss});
          const HeadOutcome cpu = RunHead(problem, {.engine = EngineKind::kCpu, .threads = 2, .loss = loss});
          for (const HeadOutcome* outcome : {&reference, &cpu}) {
            ExpectFinite(*outcome);
            EXPECT_NEAR(outcome->loss(), expected.loss, 1e-6 * expected.loss + 1e-6 * scale * t);
          }
        }
      }
    }
  }
}

TEST(Edges, LargeExponentsKeepTheirGradients) {
  // The logarithm of the normaliser is near 1e4, where float32 is 5e-4 off, which must not reach the probabilities.
  const LossParams loss = {.scale = 1e4, .m3 = 0.35};
  const HeadProblem problem = MakeHeadProblem(2, 20, 9, 40);
  const DenseGradients expected = DenseFiniteDifferences(DenseSpecOf(loss), problem.Dense(), 1e-8);
  for (const EngineKind engine : kEngines) {
    const HeadOutcome outcome = RunHead(problem, {.engine = engine, .loss = loss});
    EXPECT_TRUE(MatricesAgree(outcome.feature_gradients, expected.features, problem.dim, {1e-4}));
    EXPECT_TRUE(MatricesAgree(outcome.tensors.at("momentum"), expected.weights, problem.dim, {1e-4}));
  }
}

TEST(Edges, DroppedRowsWithLargeExponentsAddNothing) {
  // The easiest rows have the largest logits.
  HeadProblem problem = EndsProblem(7);
  const LossParams loss = {.scale = 64, .t = 10, .keep = 0.25};
  const DenseLossResult dense = DenseLoss(DenseSpecOf(loss), problem.Dense());
  ASSERT_EQ(std::count(dense.kept.begin(), dense.kept.end(), true), 3);
  for (const EngineKind engine : kEngines) {
    const HeadOutcome outcome = RunHead(problem, {.engine = engine, .loss = loss});
    ExpectFinite(outcome);
    const int64_t zero_rows = [&] {
      int64_t count = 0;
      for (int64_t b = 0; b < problem.rows; ++b) {
        const auto row = outcome.feature_gradients.begin() + b * problem.dim;
        count += std::all_of(row, row + problem.dim, [](float g) { return g == 0; }) ? 1 : 0;
      }
      return count;
    }();
    EXPECT_GE(zero_rows, 9);
  }
}

// Four classes along the axes, four rows of label 0 at `factor` times its weight.
HeadProblem AxesProblem(float factor) {
  HeadProblem problem = {.rows = 4, .dim = 4, .classes = 4, .labels = {0, 0, 0, 0}};
  problem.weights.resize(16);
  for (int64_t k = 0; k < 4; ++k) problem.weights[k * 5] = 2;
  problem.features.resize(16);
  for (int64_t b = 0; b < 4; ++b) SetFeature(problem, b, 0, factor);
  return problem;
}

TEST(Edges, ConvergedRowsKeepTheirDigits) {
  for (const double scale : {8.0, 32.0, 64.0, 80.0, 300.0}) {
    for (const double gamma : {0.0, 2.0}) {
      const long double q =
          3 * std::exp(-static_cast<long double>(scale)) / (1 + 3 * std::exp(-static_cast<long double>(scale)));
      const long double loss = std::pow(q, static_cast<long double>(gamma)) * -std::log1p(-q);
      for (const EngineKind engine : kEngines) {
        const HeadOutcome outcome =
            RunHead(AxesProblem(5), {.engine = engine, .loss = {.scale = scale, .gamma = gamma}});
        ExpectFinite(outcome);
        EXPECT_NEAR(outcome.loss(), static_cast<double>(loss), 1e-6 * static_cast<double>(loss))
            << "scale " << scale << ", gamma " << gamma;
      }
    }
  }
}

TEST(Edges, HopelessRowsHaveALinearLoss) {
  for (const double scale : {32.0, 64.0, 1e4}) {
    for (const EngineKind engine : kEngines) {
      const HeadOutcome outcome = RunHead(AxesProblem(-5), {.engine = engine, .loss = {.scale = scale}});
      ExpectFinite(outcome);
      EXPECT_NEAR(outcome.loss(), scale + std::log(3.0), 1e-6 * scale) << scale;
    }
  }
}

TEST(Edges, AClassOfZeroWeightsHasCosineZeroAndStays) {
  const LossParams loss = {.m3 = 0.35, .t = 1.2};
  HeadProblem problem = MakeHeadProblem(3, 20, 6, 8);
  for (const int64_t k : {2, 7}) std::fill_n(problem.weights.begin() + k * 6, 6, 0.0F);
  problem.labels[0] = 2;
  problem.labels[1] = 7;
  const DenseLossResult expected = DenseLoss(DenseSpecOf(loss), problem.Dense());
  ASSERT_GT(expected.mask_margin, 1e-6);
  for (const EngineKind engine : kEngines) {
    const HeadOutcome outcome = RunHead(problem, {.engine = engine, .ranks = 3, .loss = loss});
    ExpectFinite(outcome);
    EXPECT_NEAR(outcome.loss(), expected.loss, 1e-5 * expected.loss);
    for (const int64_t k : {2, 7}) {
      for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(outcome.tensors.at("weight")[k * 6 + i], 0) << k;
    }
  }
}

// A step on `problem` with all of one matrix multiplied by `factor`: gradients of that matrix times it.
struct ScaledRun {
  double loss;
  std::vector<float> feature_gradients, weight_gradients;
};

ScaledRun RunScaled(HeadProblem problem, EngineKind engine, float feature_factor, float weight_factor) {
  for (float& x : problem.features) x *= feature_factor;
  for (float& w : problem.weights) w *= weight_factor;
  const HeadOutcome outcome = RunHead(problem, {.engine = engine, .lr = 1e-6, .loss = {.m2 = 0.5, .t = 1.2}});
  ExpectFinite(outcome);
  ScaledRun run = {outcome.loss(), outcome.feature_gradients, outcome.tensors.at("momentum")};
  for (float& g : run.feature_gradients) g *= feature_factor;
  for (float& g : run.weight_gradients) g *= weight_factor;
  return run;
}

TEST(Edges, TinyAndHugeLengthsChangeNothing) {
  const HeadProblem problem = MakeHeadProblem(4, 20, 21, 40);
  for (const EngineKind engine : kEngines) {
    const ScaledRun expected = RunScaled(problem, engine, 1, 1);
    // Powers of two near 1e-30, 1e-20, 1e18 and 1e30, so that directions stay the same bits.
    for (const float factor : {0x1p-100F, 0x1p-66F, 0x1p60F, 0x1p100F}) {
      for (const bool of_features : {true, false}) {
        SCOPED_TRACE(testing::Message() << (of_features ? "features" : "weights") << " times " << factor);
        const ScaledRun run = RunScaled(problem, engine, of_features ? factor : 1, of_features ? 1 : factor);
        EXPECT_NEAR(run.loss, expected.loss, 1e-6 * expected.loss);
        EXPECT_TRUE(MatricesAgree(run.feature_gradients, expected.feature_gradients, problem.dim, {1e-5}));
        EXPECT_TRUE(MatricesAgree(run.weight_gradients, expected.weight_gradients, problem.dim, {1e-5}));
      }
    }
  }
}

TEST(Edges, TheGradientOfOneDimensionIsRounding) {
  for (const LossCase& c : ExtendedCases()) {
    SCOPED_TRACE(c.name);
    for (const EngineKind engine : kEngines) {
      const HeadOutcome outcome = RunHead(EndsProblem(1), {.engine = engine, .loss = c.params});
      for (const float g : outcome.feature_gradients) EXPECT_NEAR(g, 0, 0.05);
    }
  }
}

}  // namespace
}  // namespace shardmax
