// Rows with label -1.
#include <gmock/gmock.h>

#include <limits>

#include "tests/support/compare.h"
#include "tests/support/head_run.h"

namespace shardmax {
namespace {

constexpr EngineKind kEngines[] = {EngineKind::kReference, EngineKind::kCpu};

TEST(IgnoredRows, AreAsIfTheyWereNotThere) {
  const HeadProblem problem = MakeHeadProblem(1, 9, 7, 12);
  HeadProblem padded = problem;
  padded.rows = 13;
  padded.labels.insert(padded.labels.end(), 4, -1);
  padded.features.insert(padded.features.end(), 4 * 7, 1.0F);
  for (const EngineKind engine : kEngines) {
    const HeadRunOptions options = {.engine = engine, .loss = {.m2 = 0.5, .t = 1.2, .keep = 0.7}};
    const HeadOutcome without = RunHead(problem, options);
    const HeadOutcome with = RunHead(padded, options);
    EXPECT_EQ(with.loss(), without.loss());
    EXPECT_EQ(with.steps[0].counted_rows, 9);
    EXPECT_EQ(with.steps[0].support_vector_ratio, without.steps[0].support_vector_ratio);
    EXPECT_TRUE(MatricesAgree(with.tensors.at("momentum"), without.tensors.at("momentum"), 7, {1e-6}));
    EXPECT_THAT(std::span(with.feature_gradients).subspan(9 * 7), testing::Each(0));
  }
}

TEST(IgnoredRows, MayHoldAnything) {
  HeadProblem problem = MakeHeadProblem(1, 9, 7, 12);
  problem.labels[3] = -1;
  const HeadOutcome expected = RunHead(problem, {.ranks = 2});
  problem.features[3 * 7] = std::numeric_limits<float>::quiet_NaN();
  problem.features[3 * 7 + 1] = std::numeric_limits<float>::infinity();
  const HeadOutcome outcome = RunHead(problem, {.ranks = 2});
  EXPECT_EQ(outcome.tensors, expected.tensors);
  EXPECT_EQ(outcome.feature_gradients, expected.feature_gradients);
}

TEST(IgnoredRows, AloneGiveLossZeroAndOnlyWeightDecay) {
  HeadProblem problem = MakeHeadProblem(2, 9, 7, 12);
  problem.labels.assign(9, -1);
  for (const EngineKind engine : kEngines) {
    for (const int ranks : {1, 3}) {
      const HeadOutcome outcome = RunHead(
          problem, {.engine = engine, .ranks = ranks, .optimizer = {.weight_decay = 0.25, .momentum = 0.5}, .lr = 0.5});
      EXPECT_EQ(outcome.loss(), 0);
      EXPECT_EQ(outcome.steps[0].counted_rows, 0);
      EXPECT_EQ(outcome.steps[0].label_cosine, 0);
      EXPECT_EQ(outcome.steps[0].support_vector_ratio, 0);
      EXPECT_THAT(outcome.feature_gradients, testing::Each(0));
      std::vector<double> momentum, weight;
      for (const float w : problem.weights) {
        momentum.push_back(0.25 * static_cast<double>(w));
        weight.push_back(static_cast<double>(w) * (1 - 0.5 * 0.25));
      }
      EXPECT_TRUE(MatricesAgree(outcome.tensors.at("momentum"), momentum, 7, {1e-7}));
      EXPECT_TRUE(MatricesAgree(outcome.tensors.at("weight"), weight, 7, {1e-7}));
    }
  }
}

TEST(IgnoredRows, MayBeAllThatOneRankHas) {
  HeadProblem problem = MakeHeadProblem(3, 9, 7, 12);
  for (int64_t b = 3; b < 6; ++b) problem.labels[b] = -1;
  const HeadRunOptions options = {.loss = {.m3 = 0.35, .t = 1.2}};
  HeadRunOptions split = options;
  split.ranks = 3;
  const HeadOutcome alone = RunHead(problem, options);
  const HeadOutcome outcome = RunHead(problem, split);
  EXPECT_NEAR(outcome.loss(), alone.loss(), 1e-6 * alone.loss());
  EXPECT_TRUE(MatricesAgree(outcome.tensors.at("momentum"), alone.tensors.at("momentum"), 7, {1e-6}));
}

}  // namespace
}  // namespace shardmax
