#include "worker/engine/cpu/score_search.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

namespace shardmax {
namespace {

TEST(FindAtLeast, FindsThePlacesForAnyLength) {
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

}  // namespace
}  // namespace shardmax
