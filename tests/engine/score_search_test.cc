#include "worker/engine/cpu/score_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "tests/engine/kernels_on_targets.h"

namespace shardmax {
namespace {

class ScoreSearch : public Kernels {};

TEST_P(ScoreSearch, FindsThePlacesForAnyLength) {
  std::mt19937 random(4);
  std::uniform_real_distribution<float> score(-1, 1);
  for (int64_t count = 0; count <= 130; ++count) {
    std::vector<float> scores(static_cast<size_t>(count));
    for (float& x : scores) x = score(random);
    for (const float floor : {-2.0F, 0.9F, 2.0F, count > 0 ? scores[static_cast<size_t>(count / 2)] : 0}) {
      std::vector<int32_t> expected;
      for (int32_t i = 0; i < count; ++i) {
        if (scores[static_cast<size_t>(i)] >= floor) expected.push_back(i);
      }
      std::vector<int32_t> places(static_cast<size_t>(count + kScoreSearchRoom));
      places.resize(static_cast<size_t>(FindAtLeast(scores.data(), count, floor, places.data())));
      EXPECT_EQ(places, expected) << count << " scores, floor " << floor;
    }
  }
}

TEST_P(ScoreSearch, FindsWhatReachesAFloorOfTwo) {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> score(-1, 1);
  for (int64_t count = 0; count <= 130; ++count) {
    std::vector<float> scores(static_cast<size_t>(count));
    std::vector<float> floors(static_cast<size_t>(count));
    for (float& x : scores) x = score(random);
    for (float& x : floors) x = score(random) + 0.5F;
    if (count > 3) floors[3] = scores[3];
    for (const float floor : {-2.0F, 0.9F, INFINITY, -INFINITY}) {
      std::vector<int32_t> expected;
      for (int32_t i = 0; i < count; ++i) {
        const auto place = static_cast<size_t>(i);
        if (scores[place] >= floor || scores[place] >= floors[place]) expected.push_back(i);
      }
      std::vector<int32_t> places(static_cast<size_t>(count + kScoreSearchRoom));
      places.resize(static_cast<size_t>(FindAtLeastEither(scores.data(), count, floor, floors.data(), places.data())));
      EXPECT_EQ(places, expected) << count << " scores, floor " << floor;
    }
  }
}

TEST_P(ScoreSearch, TakesForTheWorstTheLowestAndOfEqualOnesTheHighestId) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> level(-3, 3);  // Many ties.
  for (int64_t count = 1; count <= 130; ++count) {
    std::vector<float> scores;
    std::vector<int32_t> ids;
    std::vector<std::pair<float, int32_t>> all;
    for (int32_t i = 0; i < count; ++i) {
      scores.push_back(static_cast<float>(level(random)));
      ids.push_back(i * 7919 % 131);
      all.emplace_back(scores.back(), -ids.back());
    }
    const auto expected = std::ranges::min_element(all) - all.begin();
    EXPECT_EQ(PlaceOfWorst(scores.data(), ids.data(), count), expected) << count << " scores";
  }
}

TEST_P(ScoreSearch, HasDotProductsOfTheSameBitsBothWays) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  for (const size_t dim : {1, 15, 16, 33, 64, 130}) {
    std::vector<float> rows(5 * dim);
    for (float& x : rows) x = normal(random);
    const auto row = [&](size_t i) { return std::span<const float>(rows).subspan(i * dim, dim); };
    const std::vector<int32_t> places = {4, 0, 2};
    std::vector<float> dots(places.size());
    DotRows(row(1), rows.data(), places, dots.data());
    for (size_t i = 0; i < places.size(); ++i) {
      const auto other = row(static_cast<size_t>(places[i]));
      double expected = 0;
      for (size_t k = 0; k < dim; ++k) expected += static_cast<double>(other[k]) * row(1)[k];
      EXPECT_NEAR(dots[i], expected, 1e-5) << "width " << dim;
      float exchanged = 0;
      DotRows(other, rows.data(), std::vector<int32_t>{1}, &exchanged);
      EXPECT_EQ(dots[i], exchanged) << "width " << dim;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, ScoreSearch, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()), NameOfTarget);

}  // namespace
}  // namespace shardmax
