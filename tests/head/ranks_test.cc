// A step does not depend on the number of ranks beyond rounding.
#include <gmock/gmock.h>

#include "tests/support/compare.h"
#include "tests/support/head_run.h"
#include "tests/support/loss_cases.h"

namespace shardmax {
namespace {

void ExpectSameOnAnyRanks(const std::vector<HeadProblem>& batches, HeadRunOptions options,
                          const std::vector<int>& worlds, double bound) {
  const HeadProblem& last = batches.back();
  SCOPED_TRACE(last.Describe());
  options.ranks = 1;
  const HeadOutcome alone = RunHead(batches, options);
  for (const int ranks : worlds) {
    SCOPED_TRACE(testing::Message() << ranks << " ranks");
    options.ranks = ranks;
    const HeadOutcome outcome = RunHead(batches, options);
    for (size_t i = 0; i < batches.size(); ++i) {
      EXPECT_NEAR(outcome.steps[i].loss, alone.steps[i].loss, bound * alone.steps[i].loss + 1e-30) << "step " << i;
      EXPECT_NEAR(outcome.steps[i].label_cosine, alone.steps[i].label_cosine, 1e-6);
      EXPECT_EQ(outcome.steps[i].support_vector_ratio, alone.steps[i].support_vector_ratio);
      EXPECT_EQ(outcome.steps[i].counted_rows, alone.steps[i].counted_rows);
    }
    EXPECT_TRUE(MatricesAgree(outcome.feature_gradients, alone.feature_gradients, last.dim, {bound})) << "features";
    for (const auto& [name, tensor] : alone.tensors) {
      EXPECT_TRUE(MatricesAgree(outcome.tensors.at(name), tensor, last.dim, {bound})) << name;
    }
  }
}

// Three batches of unlike sizes, the last smaller than the largest world, some rows ignored.
std::vector<HeadProblem> Batches(uint32_t seed, int64_t dim, int64_t classes) {
  std::vector<HeadProblem> batches;
  for (const int64_t rows : {33, 20, 5}) {
    batches.push_back(MakeHeadProblem(seed + static_cast<uint32_t>(rows), rows, dim, classes));
    batches.back().labels[rows / 2] = -1;
    batches.back().labels[rows - 1] = -1;
  }
  return batches;
}

double BoundOf(EngineKind engine) {
  return engine == EngineKind::kReference ? 1e-6 : 1e-5;
}

class AnyRanks : public testing::TestWithParam<EngineKind> {};

TEST_P(AnyRanks, TrainAlikeWithEveryLoss) {
  for (const LossCase& c : AllLossCases()) {
    SCOPED_TRACE(c.name);
    const HeadRunOptions options = {.engine = GetParam(), .loss = c.params};
    ExpectSameOnAnyRanks(Batches(10, 13, 103), options, {2, 3, 8}, BoundOf(GetParam()));
  }
}

TEST_P(AnyRanks, TrainAlikeWithEveryOptimizer) {
  const LossParams loss = {.m3 = 0.35, .t = 1.2};
  const std::vector<OptimizerParams> optimizers = {
      {},
      {.weight_decay = 5e-4, .momentum = 0.9},
      {.weight_decay = 0.1, .momentum = 0.9, .nesterov = true},
      {.kind = OptimizerKind::kAdamW, .weight_decay = 0.01},
  };
  for (const OptimizerParams& optimizer : optimizers) {
    // AdamW turns a gradient of rounding size into a step of size lr: eps above that size.
    HeadRunOptions options = {.engine = GetParam(), .optimizer = optimizer, .lr = 0.01, .loss = loss};
    options.optimizer.eps = 1e-3;
    ExpectSameOnAnyRanks(Batches(20, 13, 103), options, {2, 3, 8}, BoundOf(GetParam()));
  }
}

// Rounding differs where a sum in another order crosses the draw: by a last bit of bfloat16, in a few of thousands.
TEST_P(AnyRanks, RoundStateAlike) {
  for (const OptimizerKind kind : {OptimizerKind::kSgd, OptimizerKind::kAdamW}) {
    HeadRunOptions options = {.engine = GetParam(), .loss = {.m3 = 0.35, .t = 1.2}};
    options.optimizer = {.kind = kind, .momentum = 0.9, .state_type = StateType::kBfloat16, .noise_seed = 3};
    const HeadProblem problem = MakeHeadProblem(60, 33, 20, 501);
    const HeadOutcome alone = RunHead(problem, options);
    options.ranks = 3;
    const HeadOutcome outcome = RunHead(problem, options);
    for (const std::string& name : options.optimizer.StateNames()) {
      const std::vector<float>& one = alone.tensors.at(name);
      const std::vector<float>& three = outcome.tensors.at(name);
      int64_t different = 0;
      float largest = 0;
      for (const float value : one) largest = std::max(largest, std::abs(value));
      for (size_t i = 0; i < one.size(); ++i) {
        EXPECT_NEAR(three[i], one[i], std::abs(one[i]) / 64 + 1e-6F * largest) << name << ", " << i;
        different += three[i] != one[i] ? 1 : 0;
      }
      EXPECT_LE(different, static_cast<int64_t>(one.size()) / 100) << name;
    }
  }
}

TEST_P(AnyRanks, MayOwnOneClassEach) {
  for (const int ranks : {2, 3, 8}) {
    const HeadRunOptions options = {.engine = GetParam(), .loss = {.scale = 30, .m2 = 0.5, .t = 1.2}};
    ExpectSameOnAnyRanks({MakeHeadProblem(30, 9, 5, ranks)}, options, {ranks}, BoundOf(GetParam()));
  }
}

TEST_P(AnyRanks, MayOutnumberTheRowsOfABatch) {
  for (const int64_t rows : {1, 2, 7}) {
    const HeadRunOptions options = {.engine = GetParam(), .loss = {.m3 = 0.35, .t = 1.2, .keep = 0.9}};
    ExpectSameOnAnyRanks({MakeHeadProblem(40, rows, 5, 17)}, options, {2, 3, 8}, BoundOf(GetParam()));
  }
}

TEST_P(AnyRanks, SplitUnevenClassesWithSeveralThreadsEach) {
  const HeadRunOptions options = {.engine = GetParam(), .threads = 2, .loss = {.m2 = 0.5, .t = 1.2}};
  ExpectSameOnAnyRanks({MakeHeadProblem(50, 17, 24, 1501)}, options, {2, 3}, BoundOf(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Engines, AnyRanks, testing::Values(EngineKind::kReference, EngineKind::kCpu),
                         [](const auto& info) { return info.param == EngineKind::kCpu ? "Cpu" : "Reference"; });

}  // namespace
}  // namespace shardmax
