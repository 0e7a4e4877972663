#include "worker/head/random_weights.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "tests/data/temp_folder.h"
#include "worker/base/status.h"
#include "worker/engine/make_engine.h"

namespace shardmax {
namespace {

// More classes than are drawn at a time.
constexpr int64_t kClasses = 9001, kDim = 257;

std::vector<float> Draw(EngineOptions options, Range shard, EngineKind kind = EngineKind::kCpu) {
  options.shard = shard;
  options.dim = kDim;
  options.optimizer.momentum = 0.9;
  std::vector<float> weights(static_cast<size_t>(shard.count * kDim));
  const absl::Status status = [&]() -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const auto choice, MakeEngine(kind, options));
    SHARDMAX_RETURN_IF_ERROR(DrawWeights(*choice.engine, 7, 0.5));
    return choice.engine->ReadRows("weight", shard, {weights.data(), shard.count, kDim});
  }();
  EXPECT_TRUE(status.ok()) << status;
  return weights;
}

TEST(DrawWeights, HasTheSameBitsWithAnyNumberOfThreads) {
  const std::vector<float> one = Draw({.threads = 1}, {0, kClasses}, EngineKind::kReference);
  EXPECT_TRUE(Draw({.threads = 1}, {0, kClasses}) == one);
  EXPECT_TRUE(Draw({.threads = 2}, {0, kClasses}) == one);
  EXPECT_TRUE(Draw({.threads = 5}, {0, kClasses}) == one);
  const TempFolder folder;
  EXPECT_TRUE(Draw({.threads = 2, .storage_folder = folder.path()}, {0, kClasses}) == one);
}

TEST(DrawWeights, GivesAClassTheSameInAnyShard) {
  const std::vector<float> all = Draw({.threads = 2}, {0, 12});
  const std::vector<float> part = Draw({.threads = 3}, {5, 2});
  EXPECT_THAT(part, testing::ElementsAreArray(all.begin() + 5 * kDim, all.begin() + 7 * kDim));
}

TEST(DrawWeights, DrawsFromTheNormalDistribution) {
  const std::vector<float> weights = Draw({.threads = 2}, {0, kClasses});
  double sum = 0, squares = 0, fourths = 0;
  for (const float w : weights) {
    const double z = w / 0.5;
    sum += z;
    squares += z * z;
    fourths += z * z * z * z;
  }
  const auto count = static_cast<double>(weights.size());  // 2.3 million, so deviations are below 0.001 and 0.007.
  EXPECT_NEAR(sum / count, 0, 0.005);
  EXPECT_NEAR(squares / count, 1, 0.005);
  EXPECT_NEAR(fourths / count, 3, 0.03);
}

}  // namespace
}  // namespace shardmax
