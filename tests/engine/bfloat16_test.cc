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

class Bfloat16 : public testing::TestWithParam<LossCase> {};

TEST_P(Bfloat16, StaysNearTheReference) {
  const LossParams& loss = GetParam().params;
  for (const auto& [rows, dim, classes] : {std::tuple<int64_t, int64_t, int64_t>(64, 256, 1000), {33, 130, 97}}) {
    const HeadProblem problem = MakeHeadProblem(1, rows, dim, classes);
    SCOPED_TRACE(problem.Describe());
    const HeadOutcome expected = RunHead(problem, {.loss = loss});
    const HeadOutcome outcome =
        RunHead(problem, {.engine = EngineKind::kCpu, .threads = 2, .precision = Precision::kBfloat16, .loss = loss});
    // A support vector that rounding makes or unmakes moves a whole probability, so that losses with t > 1 get more
    // room.
    const bool masked = loss.t != 1;
    EXPECT_LT(RelativeDistance(outcome.feature_gradients, expected.feature_gradients), masked ? 7e-3 : 5e-3);
    EXPECT_LT(RelativeDistance(outcome.tensors.at("momentum"), expected.tensors.at("momentum")),
              masked ? 1.2e-2 : 7e-3);
    EXPECT_NEAR(outcome.loss(), expected.loss(), 1e-4 * expected.loss());
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, Bfloat16, testing::ValuesIn(AllLossCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace shardmax
