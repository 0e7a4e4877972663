#include "worker/eval/tail_curve.h"

#include <random>

#include "tests/eval/eval_fixture.h"
#include "worker/base/shard_range.h"
#include "worker/base/thread_pool.h"
#include "worker/eval/exchange.h"
#include "worker/eval/high_scores.h"

namespace shardmax {
namespace {

using testing::ElementsAre;

TEST(HighScores, KeepTheOrderOfWhatIsHighEnough) {
  HighScores high;
  std::mt19937 bits(3);
  for (int64_t count = 0; count < 150; ++count) {
    for (const float floor : {-1.0F, 0.2F, 0.9F, 2.0F}) {
      std::vector<float> scores;
      for (int64_t i = 0; i < count; ++i) scores.push_back(static_cast<float>(bits() % 20) / 10 - 1);
      std::vector<float> expected;
      for (const float score : scores) {
        if (score >= floor) expected.push_back(score);
      }
      ASSERT_THAT(high.AtLeast(floor, scores), testing::ElementsAreArray(expected))
          << count << " scores from " << floor << " on";
    }
  }
}

TEST(ScoreCounts, CountScoresAsTheNearestKeyFromTheFloorOn) {
  auto counts = ScoreCounts::Make(kScoreOne / 2);
  ASSERT_TRUE(counts.ok()) << counts.status();
  const float step = 1.0F / kScoreOne;
  // More than a batch of them, some below the floor, some beyond 1.
  for (int i = 0; i < 50; ++i) {
    const float scores[] = {0.5F,  0.5F - step,        0.25F, 1.0F, 1.0F + step, 0.75F + step / 4, 0.75F - step / 4,
                            -1.0F, 0.5F - 0.4F * step, 0.75F, 2.0F, 0.75F + step};
    counts->Add(scores);
  }
  EXPECT_EQ(counts->at(kScoreOne), 150);
  EXPECT_EQ(counts->at(kScoreOne / 2), 100);
  EXPECT_EQ(counts->at(kScoreOne / 4 * 3), 150);
  EXPECT_EQ(counts->at(kScoreOne / 4 * 3 + 1), 50);
  EXPECT_EQ(counts->at(kScoreOne / 4 * 3 - 1), 0);
  EXPECT_LE(counts->lowest_score(), 0.5F - step / 2);
}

TEST(ScoreCounts, LoseNothingWhenThreadsAdd) {
  auto counts = ScoreCounts::Make(0);
  ASSERT_TRUE(counts.ok());
  ThreadPool pool(4);
  const std::vector<float> scores(1000, 0.5F);
  pool.Run([&](int) {
    for (int i = 0; i < 100; ++i) counts->Add(scores);
  });
  EXPECT_EQ(counts->at(kScoreOne / 2), 400000);
}

struct Scores {
  std::vector<float> genuine, impostor;
};

// Scores that are whole keys; `spread` keys of them, so that a small one gives ties.
Scores DrawScores(uint32_t seed, int genuine, int impostor, int spread) {
  std::mt19937 bits(seed);
  const auto draw = [&](int low) {
    return static_cast<float>(ScoreOfKey(low + static_cast<int>(bits() % static_cast<uint32_t>(spread))));
  };
  Scores scores;
  for (int i = 0; i < genuine; ++i) scores.genuine.push_back(draw(kScoreOne / 2 + spread / 3));
  for (int i = 0; i < impostor; ++i) scores.impostor.push_back(draw(kScoreOne / 2));
  return scores;
}

// The points at `rates` of scores that are dealt out to `ranks` ranks.
std::vector<std::optional<RocPoint>> PointsOn(int ranks, const Scores& scores, const std::vector<double>& rates,
                                              int32_t floor) {
  std::vector<std::optional<RocPoint>> points;
  SpawnRanks(ranks, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(ScoreCounts genuine, ScoreCounts::Make(floor));
    SHARDMAX_ASSIGN_OR_RETURN(ScoreCounts impostor, ScoreCounts::Make(floor));
    for (size_t i = comm.rank(); i < scores.genuine.size(); i += ranks) genuine.Add({&scores.genuine[i], 1});
    for (size_t i = comm.rank(); i < scores.impostor.size(); i += ranks) impostor.Add({&scores.impostor[i], 1});
    const PairCounts pairs = {static_cast<int64_t>(scores.genuine.size()),
                              static_cast<int64_t>(scores.impostor.size())};
    SHARDMAX_ASSIGN_OR_RETURN(const TailCurve curve, TailCurve::Make(comm, genuine, impostor, pairs));
    for (const double rate : rates) EXPECT_TRUE(curve.Reaches(rate)) << rate;
    SHARDMAX_ASSIGN_OR_RETURN(auto mine, curve.AtRates(comm, rates));
    if (comm.rank() == 0) points = std::move(mine);
    return absl::OkStatus();
  });
  return points;
}

TEST(TailCurve, GivesThePointsOfTheWholeCurve) {
  const std::vector<double> rates = {1, 0.5, 0.1, 0.01, 1e-3, 1e-4};
  for (const int spread : {1, 7, 3000, 1 << 21}) {
    for (uint32_t seed = 0; seed < 3; ++seed) {
      const Scores scores = DrawScores(seed, 300, 2000, spread);
      const RocCurve whole = MakeRocCurve({scores.genuine.begin(), scores.genuine.end()},
                                          {scores.impostor.begin(), scores.impostor.end()});
      const auto points = PointsOn(1 + static_cast<int>(seed), scores, rates, -kScoreOne);
      ASSERT_EQ(points.size(), rates.size());
      for (size_t r = 0; r < rates.size(); ++r) {
        const auto expected = PointAtRate(whole, rates[r]);
        ASSERT_EQ(points[r].has_value(), expected.has_value()) << rates[r];
        if (!expected.has_value()) continue;
        EXPECT_EQ(points[r]->true_accepts, expected->true_accepts) << spread << " keys, rate " << rates[r];
        EXPECT_EQ(points[r]->false_accepts, expected->false_accepts) << spread << " keys, rate " << rates[r];
        const auto accepted = std::count_if(scores.impostor.begin(), scores.impostor.end(),
                                            [&](float score) { return score >= points[r]->threshold; });
        EXPECT_EQ(accepted, expected->false_accepts) << "from " << points[r]->threshold << " on";
      }
    }
  }
}

TEST(TailCurve, NeedsAnImpostorTooManyUnlessItIsWhole) {
  SpawnRanks(2, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(ScoreCounts genuine, ScoreCounts::Make(0));
    SHARDMAX_ASSIGN_OR_RETURN(ScoreCounts impostor, ScoreCounts::Make(0));
    const float score = 0.5F;
    impostor.Add({&score, 1});
    SHARDMAX_ASSIGN_OR_RETURN(const TailCurve curve, TailCurve::Make(comm, genuine, impostor, {1, 100}));
    EXPECT_EQ(curve.impostors(), 2);
    EXPECT_TRUE(curve.Reaches(0.01));
    EXPECT_FALSE(curve.Reaches(0.02)) << "the second impostor is accepted, but not the last that could be";
    return absl::OkStatus();
  });
}

TEST(SumCounts, AddsLongListsPieceByPiece) {
  SpawnRanks(3, [&](Communicator& comm) -> absl::Status {
    std::vector<int64_t> counts(1000000);
    for (size_t i = 0; i < counts.size(); ++i) counts[i] = static_cast<int64_t>(i) * (comm.rank() + 1);
    SHARDMAX_RETURN_IF_ERROR(SumCounts(comm, counts));
    for (size_t i = 0; i < counts.size(); ++i) EXPECT_EQ(counts[i], static_cast<int64_t>(i) * 6);
    return absl::OkStatus();
  });
}

TEST(GatherParts, JoinsPartsOfDifferentLength) {
  SpawnRanks(3, [&](Communicator& comm) -> absl::Status {
    const Range mine = BalancedPart(5, comm.rank(), 3);
    std::vector<double> values;
    for (int64_t i = mine.first; i < mine.end(); ++i) values.push_back(static_cast<double>(i));
    SHARDMAX_ASSIGN_OR_RETURN(const std::vector<double> all, GatherParts(comm, values, 5));
    EXPECT_THAT(all, ElementsAre(0, 1, 2, 3, 4));
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace shardmax
