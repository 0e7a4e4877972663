#include "worker/eval/folds.h"

#include <gmock/gmock.h>

#include <random>

#include "worker/base/shard_range.h"

namespace shardmax {
namespace {

TEST(CrossValidate, PutsTheThresholdHalfwayBetweenTheKinds) {
  const std::vector<double> scores = {0.9, 0.2, 0.8, 0.4};
  const std::vector<uint8_t> genuine = {1, 0, 1, 0};
  const auto folds = CrossValidate(scores, genuine, 2);
  ASSERT_EQ(folds.size(), 2u);
  EXPECT_NEAR(folds[0].threshold, 0.6, 1e-15);  // Of the second half.
  EXPECT_EQ(folds[0].accuracy, 1);
  EXPECT_NEAR(folds[1].threshold, 0.55, 1e-15);
  EXPECT_EQ(folds[1].accuracy, 1);
}

TEST(CrossValidate, JudgesAFoldByTheOthersOnly) {
  // Alone the first fold would have the threshold 0.15.
  const std::vector<double> scores = {0.2, 0.1, 0.9, 0.5};
  const std::vector<uint8_t> genuine = {1, 0, 1, 0};
  EXPECT_EQ(CrossValidate(scores, genuine, 2)[0].accuracy, 0.5);
}

TEST(CrossValidate, AcceptsNothingOrEverythingWhereThatIsBest) {
  const std::vector<double> scores = {0.5, 0.6, 0.7, 0.8};
  EXPECT_GT(CrossValidate(scores, std::vector<uint8_t>(4, 0), 2)[0].threshold, 0.8);
  EXPECT_EQ(CrossValidate(scores, std::vector<uint8_t>(4, 1), 2)[0].threshold, 0.7);
}

TEST(CrossValidate, FindsTheBestOfAllThresholdsAlsoAmongTies) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    std::mt19937 bits(seed);
    std::vector<double> scores;
    std::vector<uint8_t> genuine;
    for (int i = 0; i < 60; ++i) {
      genuine.push_back(bits() % 2);
      scores.push_back(static_cast<double>(bits() % 8 + 3 * genuine.back()) / 10);
    }
    const auto right = [&](double threshold, Range skipped, bool inside) {
      int count = 0;
      for (int64_t i = 0; i < 60; ++i) {
        if (skipped.contains(i) == inside) count += (scores[i] >= threshold) == (genuine[i] != 0) ? 1 : 0;
      }
      return count;
    };
    const auto folds = CrossValidate(scores, genuine, 7);
    for (int k = 0; k < 7; ++k) {
      const Range fold = BalancedPart(60, k, 7);
      int best = 0;
      for (double threshold = -0.05; threshold < 1.3; threshold += 0.1) {
        best = std::max(best, right(threshold, fold, false));
      }
      EXPECT_EQ(right(folds[k].threshold, fold, false), best) << "seed " << seed << ", fold " << k;
      EXPECT_EQ(folds[k].accuracy, right(folds[k].threshold, fold, true) / static_cast<double>(fold.count));
    }
  }
}

}  // namespace
}  // namespace shardmax
