// The CUDA engine on the stand-in against the reference engine.
#include <gmock/gmock.h>

#include <cmath>
#include <tuple>

#include "tests/cuda_on_host/control.h"
#include "tests/cuda_on_host/on_cuda.h"
#include "tests/support/compare.h"
#include "tests/support/head_run.h"
#include "tests/support/loss_cases.h"
#include "tests/support/sanitizers.h"

namespace shardmax {
namespace {

using cuda_on_host::Machine;
using cuda_on_host::SetMachine;
using cuda_on_host::Timing;

// Of the largest element, against float64.
constexpr double kFloat32Bound = 1e-5;
// Distances of a step in bfloat16 from float64, of all elements together. A support vector that rounding makes or
// unmakes moves a whole probability.
constexpr double kBfloat16Loss = 1e-4;
constexpr double kBfloat16Gradients = 7e-3;
constexpr double kBfloat16GradientsOfMasks = 7e-2;

// A cache so small that a few hundred classes are several tiles, and a rank a device.
Machine SmallMachine() {
  return {.memory_bytes = size_t{256} << 20, .l2_bytes = 100'000};
}

HeadProblem ProblemOf(const LossParams& loss, int64_t rows, int64_t dim, int64_t classes, double margin,
                      uint32_t seed) {
  HeadProblem problem = MakeHeadProblem(seed, rows, dim, classes);
  if (loss.t != 1) AvoidThresholds(loss, margin, problem);
  if (rows > 2) problem.labels[rows / 3] = -1;
  return problem;
}

void ExpectAgreement(const std::vector<HeadProblem>& batches, const HeadRunOptions& options,
                     const HeadOutcome& expected) {
  const int64_t dim = batches.back().dim;
  SCOPED_TRACE(batches.back().Describe());
  const HeadOutcome outcome = RunHead(batches, OnCuda(options));
  for (size_t i = 0; i < batches.size(); ++i) {
    EXPECT_NEAR(outcome.steps[i].loss, expected.steps[i].loss, kFloat32Bound * expected.steps[i].loss) << "step " << i;
  }
  if (options.want_feature_gradients) {
    EXPECT_TRUE(MatricesAgree(outcome.feature_gradients, expected.feature_gradients, dim, {kFloat32Bound}))
        << "features";
  }
  for (const auto& [name, tensor] : expected.tensors) {
    EXPECT_TRUE(MatricesAgree(outcome.tensors.at(name), tensor, dim, {kFloat32Bound})) << name;
  }
}

double Distance(const std::vector<float>& actual, const std::vector<float>& expected) {
  double distance = 0, length = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    distance += std::pow(static_cast<double>(actual[i]) - static_cast<double>(expected[i]), 2);
    length += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::sqrt(distance / length);
}

class CudaMatrix : public testing::TestWithParam<LossCase> {
 protected:
  void SetUp() override { SetMachine(SmallMachine()); }
  void TearDown() override {
    EXPECT_EQ(cuda_on_host::AllocatedBytes(), 0) << "memory of a device was not freed";
    SetMachine({});
  }
};

TEST_P(CudaMatrix, AgreesWithTheReferenceInFloat32OnOneToThreeRanks) {
  const LossParams& loss = GetParam().params;
#if defined(SHARDMAX_ASAN) || defined(SHARDMAX_TSAN)
  const std::vector<std::tuple<int64_t, int64_t, int64_t>> shapes = {{1, 3, 5}, {7, 17, 97}, {13, 3, 400}};
#else
  const std::vector<std::tuple<int64_t, int64_t, int64_t>> shapes = {
      {1, 3, 5}, {7, 17, 97}, {33, 130, 613}, {13, 3, 1500}, {3, 64, 3}};
#endif
  for (const auto& [rows, dim, classes] : shapes) {
    const HeadProblem problem = ProblemOf(loss, rows, dim, classes, 1e-6, 1);
    HeadRunOptions options = {.loss = loss};
    const HeadOutcome expected = RunHead(problem, options);
    for (const int ranks : {1, 2, 3}) {
      SCOPED_TRACE(testing::Message() << ranks << " ranks");
      options.ranks = ranks;
      ExpectAgreement({problem}, options, expected);
    }
  }
}

TEST_P(CudaMatrix, StaysNearTheReferenceInBfloat16OnOneToThreeRanks) {
  const LossParams& loss = GetParam().params;
#if defined(SHARDMAX_ASAN) || defined(SHARDMAX_TSAN)
  const std::vector<std::tuple<int64_t, int64_t, int64_t>> shapes = {{33, 130, 97}};
#else
  const std::vector<std::tuple<int64_t, int64_t, int64_t>> shapes = {{33, 130, 97}, {29, 67, 613}};
#endif
  for (const auto& [rows, dim, classes] : shapes) {
    const HeadProblem problem = ProblemOf(loss, rows, dim, classes, 1e-3, 1);
    HeadRunOptions options = {.loss = loss};
    const HeadOutcome expected = RunHead(problem, options);
    options.precision = Precision::kBfloat16;
    for (const int ranks : {1, 2, 3}) {
      SCOPED_TRACE(testing::Message() << ranks << " ranks, " << problem.Describe());
      options.ranks = ranks;
      const HeadOutcome outcome = RunHead(problem, OnCuda(options));
      const double bound = loss.t != 1 ? kBfloat16GradientsOfMasks : kBfloat16Gradients;
      EXPECT_NEAR(outcome.loss(), expected.loss(), kBfloat16Loss * expected.loss());
      EXPECT_LT(Distance(outcome.feature_gradients, expected.feature_gradients), bound);
      EXPECT_LT(Distance(outcome.tensors.at("momentum"), expected.tensors.at("momentum")), bound);
    }
  }
}

TEST_P(CudaMatrix, AgreesOverStepsWhenEverythingIsLateAndOutOfOrder) {
  const LossParams& loss = GetParam().params;
  std::vector<HeadProblem> batches;
  for (const int64_t rows : {33, 33, 5, 18}) {
    batches.push_back(ProblemOf(loss, rows, 20, 397, 1e-6, static_cast<uint32_t>(batches.size() + 1)));
  }
  HeadRunOptions options = {.lr = 0.01, .loss = loss};
  const HeadOutcome expected = RunHead(batches, options);
  options.ranks = 2;
  for (const Timing timing : {Timing::kLate, Timing::kSometimes}) {
    Machine machine = SmallMachine();
    machine.timing = timing;
    machine.seed = 5;
    SetMachine(machine);
    for (const bool want_feature_gradients : {true, false}) {
      options.want_feature_gradients = want_feature_gradients;
      ExpectAgreement(batches, options, expected);
    }
  }
}

// Sanitizers make it many times slower, and look at memory and order, which the loss hardly changes.
std::vector<LossCase> Cases() {
#if defined(SHARDMAX_ASAN) || defined(SHARDMAX_TSAN)
  return {PresetCases().back(), MixtureCases().front()};
#else
  std::vector<LossCase> cases = PresetCases();
  for (const LossCase& mixture : MixtureCases()) {
    if (mixture.name == "Everything" || mixture.name == "EasySvAm" || mixture.name == "LinearSvArc") {
      cases.push_back(mixture);
    }
  }
  return cases;
#endif
}

INSTANTIATE_TEST_SUITE_P(Losses, CudaMatrix, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace shardmax
