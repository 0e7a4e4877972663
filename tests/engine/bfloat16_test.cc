// How far bfloat16 products are from float64 ones.
#include <gmock/gmock.h>

#include <cmath>

#include "tests/support/head_run.h"
#include "tests/support/loss_cases.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

// |actual - expected| / |expected|, of all elements together.
double RelativeDistance(const std::vector<float>& actual, const std::vector<float>& expected) {
  double distance = 0, length = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    distance += std::pow(static_cast<double>(actual[i]) - static_cast<double>(expected[i]), 2);
    length += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::sqrt(distance / length);
}

// Distances of loss and gradients that a step in bfloat16 may have from the reference in float64.
struct Bounds {
  double loss, features, weights;
};

void ExpectNear(const HeadProblem& problem, const LossParams& loss, const Bounds& bounds) {
  SCOPED_TRACE(problem.Describe());
  const HeadOutcome expected = RunHead(problem, {.loss = loss});
  const HeadOutcome outcome =
      RunHead(problem, {.engine = EngineKind::kCpu, .threads = 2, .precision = Precision::kBfloat16, .loss = loss});
  EXPECT_NEAR(outcome.loss(), expected.loss(), bounds.loss * expected.loss());
  EXPECT_LT(RelativeDistance(outcome.feature_gradients, expected.feature_gradients), bounds.features);
  EXPECT_LT(RelativeDistance(outcome.tensors.at("momentum"), expected.tensors.at("momentum")), bounds.weights);
}

class Bfloat16 : public testing::TestWithParam<LossCase> {};

TEST_P(Bfloat16, StaysNearTheReferenceWhereEveryMaskIsClear) {
  const LossParams& loss = GetParam().params;
  HeadProblem problem = MakeHeadProblem(1, 33, 130, 97);
  if (loss.t != 1) AvoidThresholds(loss, 1e-3, problem);
  ExpectNear(problem, loss, {.loss = 5e-5, .features = 5e-3, .weights = 7e-3});
}

TEST_P(Bfloat16, StaysNearTheReferenceOverSeveralTiles) {
  const LossParams& loss = GetParam().params;
  // A support vector that rounding makes or unmakes moves a whole probability.
  const Bounds bounds = loss.t != 1 ? Bounds{1e-4, 2e-2, 7e-2} : Bounds{5e-5, 5e-3, 7e-3};
  ExpectNear(MakeHeadProblem(1, 40, 200, 1000), loss, bounds);
}

// Gathered rows are padded to sizes that products are prepared for, and packed where the width allows it.
TEST(SampledTiles, AreAsTheReferenceHasThemWhateverTheirSize) {
  const std::vector<HeadProblem> batches = {MakeHeadProblem(21, 20, 64, 300), MakeHeadProblem(22, 20, 64, 300)};
  for (const double rate : {0.05, 0.15, 0.3, 0.6}) {  // 35 to 190 classes a step.
    for (const int64_t tile_classes : {128, 100}) {
      for (const CosineStorage cosines : {CosineStorage::kRecompute, CosineStorage::kKeepInt16}) {
        SCOPED_TRACE(testing::Message() << "rate " << rate << ", tiles of " << tile_classes << ", cosines "
                                        << static_cast<int>(cosines));
        HeadRunOptions options = {.sample_rate = rate, .loss = {.m3 = 0.35}};
        const HeadOutcome expected = RunHead(batches, options);
        options.engine = EngineKind::kCpu;
        options.tile_classes = tile_classes;
        options.cosines = cosines;
        for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16}) {
          options.precision = precision;
          const bool exact = precision == Precision::kFloat32 && cosines == CosineStorage::kRecompute;
          const HeadOutcome outcome = RunHead(batches, options);
          EXPECT_NEAR(outcome.loss(), expected.loss(), (exact ? 1e-6 : 1e-4) * expected.loss());
          EXPECT_LT(RelativeDistance(outcome.feature_gradients, expected.feature_gradients), exact ? 1e-5 : 1e-2);
          EXPECT_LT(RelativeDistance(outcome.tensors.at("weight"), expected.tensors.at("weight")), exact ? 1e-6 : 1e-3);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, Bfloat16, testing::ValuesIn(AllLossCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace shardmax
