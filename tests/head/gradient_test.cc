// The gradients of a step against finite differences of an independent float64 loss.
#include <gmock/gmock.h>

#include "tests/support/compare.h"
#include "tests/support/head_run.h"
#include "tests/support/loss_cases.h"

namespace shardmax {
namespace {

// Float32 features of length 1 and a float32 label cosine go through exponents of size s t.
constexpr double kBound = 1e-5;

// A problem where no choice of mask or hard mining is near enough to its boundary for float32, or for a difference of
// h, to fall on its other side.
HeadProblem DecidedProblem(const LossParams& loss) {
  for (uint32_t seed = 1;; ++seed) {
    HeadProblem problem = MakeHeadProblem(seed, 11, 6, 9);
    problem.labels[4] = -1;
    const DenseLossResult dense = DenseLoss(DenseSpecOf(loss), problem.Dense());
    if (dense.mask_margin > 1e-4 && dense.mining_margin > 1e-3) return problem;
  }
}

class Gradient : public testing::TestWithParam<LossCase> {};

TEST_P(Gradient, OfFeaturesAndWeightsIsThatOfTheLoss) {
  const LossParams& loss = GetParam().params;
  const HeadProblem problem = DecidedProblem(loss);
  SCOPED_TRACE(problem.Describe());
  const DenseGradients expected = DenseFiniteDifferences(DenseSpecOf(loss), problem.Dense());
  ASSERT_FALSE(expected.crossed);
  for (const EngineKind engine : {EngineKind::kReference, EngineKind::kCpu}) {
    SCOPED_TRACE(engine == EngineKind::kCpu ? "cpu" : "reference");
    const HeadOutcome outcome = RunHead(problem, {.engine = engine, .loss = loss});
    EXPECT_TRUE(MatricesAgree(outcome.feature_gradients, expected.features, problem.dim, {kBound})) << "features";
    EXPECT_TRUE(MatricesAgree(outcome.tensors.at("momentum"), expected.weights, problem.dim, {kBound})) << "weights";
  }
}

TEST_P(Gradient, ComesWithTheLossAndItsFigures) {
  const LossParams& loss = GetParam().params;
  const HeadProblem problem = DecidedProblem(loss);
  SCOPED_TRACE(problem.Describe());
  const DenseLossResult expected = DenseLoss(DenseSpecOf(loss), problem.Dense());
  for (const EngineKind engine : {EngineKind::kReference, EngineKind::kCpu}) {
    const StepResult result = RunHead(problem, {.engine = engine, .loss = loss}).steps[0];
    EXPECT_NEAR(result.loss, expected.loss, 1e-6 * expected.loss);
    EXPECT_NEAR(result.label_cosine, expected.mean_label_cosine, 1e-7);
    EXPECT_NEAR(result.support_vector_ratio, expected.support_vector_ratio, 1e-15);
    EXPECT_EQ(result.counted_rows, 10);
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, Gradient, testing::ValuesIn(AllLossCases()),
                         [](const auto& info) { return info.param.name; });

TEST(GradientCases, ReachBothSidesOfEveryBranch) {
  // Else the tests above would say less than they seem to.
  const LossParams loss = {.m2 = 0.5, .extension = Extension::kLinear, .t = 1.2};
  const HeadProblem problem = DecidedProblem(loss);
  const DenseLossResult dense = DenseLoss(DenseSpecOf(loss), problem.Dense());
  EXPECT_GT(dense.support_vector_ratio, 0.1);
  EXPECT_LT(dense.support_vector_ratio, 0.9);
  EXPECT_LT(*std::min_element(dense.label_cosines.begin(), dense.label_cosines.end()), std::cos(3.1415927 - 0.5));
  EXPECT_GT(*std::max_element(dense.label_cosines.begin(), dense.label_cosines.end()), 0.5);
}

}  // namespace
}  // namespace shardmax
