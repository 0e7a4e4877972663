#include "worker/optim/state_row.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>
#include <set>

namespace shardmax {
namespace {

TEST(StochasticRounding, KeepsTheMean) {
  const float value = 1.0F + 0.3F / 128;  // Between two neighbours that are 1/128 apart.
  constexpr int kDraws = 100'000;
  double sum = 0;
  std::set<float> results;
  for (int i = 0; i < kDraws; ++i) {
    const uint32_t noise = ElementNoise(RowNoise(StepNoise(7, i / 512), 99), static_cast<uint32_t>(i % 512));
    const float rounded = FromBfloat16(RoundStochastically(value, noise & 0xFFFFU));
    results.insert(rounded);
    sum += static_cast<double>(rounded);
  }
  EXPECT_THAT(results, testing::ElementsAre(1.0F, 1.0F + 1.0F / 128));
  // Four standard deviations of the mean of so many draws.
  EXPECT_NEAR(sum / kDraws, static_cast<double>(value), 4 * std::sqrt(0.3 * 0.7 / kDraws) / 128);
}

TEST(StochasticRounding, LeavesWhatIsBfloat16) {
  for (const float value : {0.0F, -0.0F, 1.0F, -3.5F, 0x1p-130F, 0x1.FEp127F}) {
    for (const uint32_t noise : {0U, 1U, 0x7FFFU, 0xFFFFU}) {
      EXPECT_EQ(FromBfloat16(RoundStochastically(value, noise)), value);
    }
  }
}

TEST(StochasticRounding, HasOtherNoiseForEachSeedStepClassAndColumn) {
  std::map<uint32_t, int> seen;
  for (const uint32_t seed : {0U, 1U, 0xFFFFFFFFU}) {
    for (const int64_t step : {0, 1, 1'000'000}) {
      for (const int64_t global_class_id : {0, 1, 2'000'000'000}) {
        for (const uint32_t column : {0U, 1U, 511U, 65535U}) {
          ++seen[ElementNoise(RowNoise(StepNoise(seed, step), global_class_id), column)];
        }
      }
    }
  }
  EXPECT_EQ(seen.size(), 3U * 3 * 3 * 4);
}

TEST(RoundToNearestBfloat16, TakesTheNearerAndTiesToEven) {
  EXPECT_EQ(FromBfloat16(RoundToNearestBfloat16(1.0F + 0.4F / 128)), 1.0F);
  EXPECT_EQ(FromBfloat16(RoundToNearestBfloat16(1.0F + 0.6F / 128)), 1.0F + 1.0F / 128);
  EXPECT_EQ(FromBfloat16(RoundToNearestBfloat16(1.0F + 0.5F / 128)), 1.0F);
  EXPECT_EQ(FromBfloat16(RoundToNearestBfloat16(-1.0F - 1.5F / 128)), -1.0F - 2.0F / 128);
}

}  // namespace
}  // namespace shardmax
