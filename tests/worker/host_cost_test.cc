#include "worker/host_cost.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace shardmax {
namespace {

using testing::HasSubstr;
using testing::Not;

EngineOptions Head() {
  EngineOptions options = {.shard = {0, 2'500'000}, .dim = 512, .batch_rows = 250};
  options.optimizer.momentum = 0.9;
  return options;
}

TEST(HostCost, IsFourBytesForEachWeightAndEachValueOfTheState) {
  EngineOptions options = Head();
  HostCost cost = CostOnHost(options);
  EXPECT_EQ(cost.weight_bytes, 5'120'000'000);
  EXPECT_EQ(cost.state_bytes, 5'120'000'000);
  EXPECT_EQ(cost.class_bytes, 10'000'000);
  EXPECT_EQ(cost.cosine_bytes, 0);
  EXPECT_EQ(cost.memory_bytes(), 10'250'000'000 + cost.batch_bytes);
  options.optimizer.state_type = StateType::kBfloat16;
  options.cosines = CosineStorage::kKeepInt16;
  cost = CostOnHost(options);
  EXPECT_EQ(cost.state_bytes, 2'560'000'000);
  EXPECT_EQ(cost.cosine_bytes, int64_t{2} * 256 * 2'500'000);
  EXPECT_EQ(cost.checkpoint_bytes(), 7'680'000'000);
}

TEST(HostCost, OfMappedFilesIsOnTheDisk) {
  EngineOptions options = Head();
  options.sample_rate = 0.01;
  options.storage_folder = "shards";
  const HostCost cost = CostOnHost(options);
  EXPECT_EQ(cost.class_bytes, 12 * 2'500'000 + 4 * 25'000);
  EXPECT_EQ(cost.memory_bytes(), cost.class_bytes + cost.batch_bytes);
  EXPECT_EQ(cost.checkpoint_bytes(), 10'240'000'000);
}

TEST(HostCost, IsToldInMegabytesWithTheCheckpointsOfAllRanks) {
  EngineOptions options = Head();
  const std::string text = DescribeHostCost(options, 2, 3);
  EXPECT_THAT(text, HasSubstr("weights 5120, optimizer state 5120, norms and counters 10, kept cosines 0"));
  EXPECT_THAT(text,
              HasSubstr("a snapshot, so that training goes on while a checkpoint is written: 10240 MB more a rank"));
  EXPECT_THAT(text, HasSubstr("a checkpoint: 20480 MB; on the disk at most 4 of them, 81920 MB"));
  options.storage_folder = "shards";
  const std::string mapped = DescribeHostCost(options, 2, 3);
  EXPECT_THAT(mapped, HasSubstr("files of train.storage: 10240 MB a rank, 20480 MB together"));
  EXPECT_THAT(mapped, Not(HasSubstr("a snapshot")));
}

}  // namespace
}  // namespace shardmax
