#include "worker/eval/error_rates.h"

#include <gmock/gmock.h>

#include <cmath>
#include <random>

namespace shardmax {
namespace {

using testing::ElementsAre;

struct Scores {
  std::vector<double> genuine, impostor;
};

// Scores of few distinct values, so that many tie.
Scores TiedScores(uint32_t seed, int genuine, int impostor) {
  std::mt19937 bits(seed);
  Scores scores;
  for (int i = 0; i < genuine; ++i) scores.genuine.push_back(static_cast<double>(bits() % 12 + 3) / 10);
  for (int i = 0; i < impostor; ++i) scores.impostor.push_back(static_cast<double>(bits() % 12) / 10);
  return scores;
}

TEST(RocCurve, HasOneVertexForEachDistinctScore) {
  const RocCurve curve = MakeRocCurve({0.5, 0.9, 0.5}, {0.5, 0.1});
  EXPECT_THAT(curve.points, ElementsAre(RocPoint{0.9, 1, 0}, RocPoint{0.5, 3, 1}, RocPoint{0.1, 3, 2}));
  EXPECT_EQ(curve.pairs.genuine, 3);
  EXPECT_EQ(curve.pairs.impostor, 2);
}

TEST(RocCurve, AreaIsTheChanceThatAGenuinePairWins) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const Scores scores = TiedScores(seed, 37, 53);
    double wins = 0;
    for (const double g : scores.genuine) {
      for (const double i : scores.impostor) wins += g > i ? 1 : g == i ? 0.5 : 0;
    }
    EXPECT_NEAR(AreaUnderCurve(MakeRocCurve(scores.genuine, scores.impostor)), wins / (37 * 53), 1e-14) << seed;
  }
}

TEST(RocCurve, EqualErrorRateOfKnownCurves) {
  EXPECT_EQ(EqualErrorRate(MakeRocCurve({0.9, 0.8}, {0.1, 0.2})), 0) << "separable";
  EXPECT_EQ(EqualErrorRate(MakeRocCurve({0.1, 0.2}, {0.9, 0.8})), 1) << "the wrong way round";
  EXPECT_EQ(EqualErrorRate(MakeRocCurve({0.5, 0.5}, {0.5})), 0.5) << "one score: a straight line";
  // Vertices (0, 1/2), (1/2, 1/2), (1/2, 1), (1, 1) as (FAR, TAR): the curve meets 1 - FAR at (1/2, 1/2).
  EXPECT_EQ(EqualErrorRate(MakeRocCurve({0.9, 0.5}, {0.7, 0.1})), 0.5);
  // From (0, 3/4) straight to (1/2, 1): FAR = 1 - TAR at 1/6.
  EXPECT_NEAR(EqualErrorRate(MakeRocCurve({0.9, 0.9, 0.9, 0.5}, {0.5, 0.1})), 1.0 / 6, 1e-15);
}

TEST(RocCurve, MostFalseAcceptsAreThoseWhoseShareIsAtMostTheRate) {
  EXPECT_EQ(MostFalseAccepts(1e-3, 999), 0);
  EXPECT_EQ(MostFalseAccepts(1e-3, 1000), 1);
  EXPECT_EQ(MostFalseAccepts(1e-9, 1000000000), 1);
  EXPECT_EQ(MostFalseAccepts(1, 7), 7);
  EXPECT_EQ(MostFalseAccepts(0.29, 100), 29) << "0.29 * 100 is below 29 in float64";
  for (int64_t n = 1; n < 3000; n += 7) {
    for (int64_t k = 1; k <= n; k += 11) {
      ASSERT_EQ(MostFalseAccepts(static_cast<double>(k) / static_cast<double>(n), n), k) << k << " of " << n;
    }
  }
}

TEST(RocCurve, PointAtARateIsTheBestOfAllThresholds) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const Scores scores = TiedScores(seed, 40, 200);
    const RocCurve curve = MakeRocCurve(scores.genuine, scores.impostor);
    for (const double far : {0.005, 0.01, 0.07, 0.1, 0.5, 1.0}) {
      int64_t best = 0;
      for (const double threshold : scores.genuine) {
        const auto accepts = [&](double score) { return score >= threshold; };
        const auto false_accepts = std::count_if(scores.impostor.begin(), scores.impostor.end(), accepts);
        if (static_cast<double>(false_accepts) / 200 > far) continue;
        best = std::max<int64_t>(best, std::count_if(scores.genuine.begin(), scores.genuine.end(), accepts));
      }
      const auto point = PointAtRate(curve, far);
      ASSERT_TRUE(point.has_value());
      EXPECT_EQ(point->true_accepts, best) << "seed " << seed << ", FAR " << far;
      EXPECT_LE(static_cast<double>(point->false_accepts) / 200, far);
    }
  }
}

TEST(RocCurve, HasNoPointAtARateBelowOnePair) {
  const RocCurve curve = MakeRocCurve({0.9}, std::vector<double>(99, 0.1));
  EXPECT_FALSE(PointAtRate(curve, 0.01).has_value());
  EXPECT_TRUE(PointAtRate(curve, 0.0102).has_value());
}

TEST(RocCurve, AcceptsNothingWhereTheFirstTieIsTooMuch) {
  const RocCurve curve = MakeRocCurve({0.9, 0.9}, {0.9, 0.9, 0.1, 0.1});
  const auto point = PointAtRate(curve, 0.25);
  ASSERT_TRUE(point.has_value());
  EXPECT_EQ(point->true_accepts, 0);
  EXPECT_EQ(point->false_accepts, 0);
  EXPECT_GT(point->threshold, 0.9);
}

TEST(RocCurve, ThinningKeepsBothEndsAndFewPoints) {
  std::vector<double> genuine;
  std::vector<double> impostor;
  for (int i = 0; i < 5000; ++i) genuine.push_back(2 - i * 1e-4);
  for (int i = 0; i < 20000; ++i) impostor.push_back(1.7 - i * 1e-4);
  const RocCurve curve = MakeRocCurve(genuine, impostor);
  const auto thinned = Thinned(curve.points, 100);
  EXPECT_LE(thinned.size(), 100u);
  EXPECT_GE(thinned.size(), 50u);
  EXPECT_EQ(thinned.front(), curve.points.front());
  EXPECT_EQ(thinned.back(), curve.points.back());
  EXPECT_EQ(Thinned(thinned, 100), thinned);
  const RocCurve separable = MakeRocCurve(genuine, {0.1});
  EXPECT_LE(Thinned(separable.points, 10).size(), 10u);
}

}  // namespace
}  // namespace shardmax
