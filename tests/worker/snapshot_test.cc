// Snapshots of shards: whether there is room, and what they hold.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "worker/base/status.h"
#include "worker/engine/make_engine.h"
#include "worker/head/random_weights.h"
#include "worker/shard_snapshot.h"
#include "worker/snapshot_memory.h"

namespace shardmax {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

SnapshotRoom Room(const std::vector<SnapshotMemory>& ranks) {
  return RoomForSnapshots(ranks);
}

TEST(SnapshotRoom, RanksOfOneMachineShareItsMemory) {
  EXPECT_TRUE(Room({{1, 5 * kGiB, 20 * kGiB}}).suffices());
  EXPECT_TRUE(Room({{1, 5 * kGiB, 20 * kGiB}, {1, 5 * kGiB, 20 * kGiB}}).suffices());
  const SnapshotRoom both = Room({{1, 12 * kGiB, 20 * kGiB}, {1, 12 * kGiB, 19 * kGiB}});
  EXPECT_FALSE(both.suffices());
  EXPECT_EQ(both.needed_bytes, 24 * kGiB);
  EXPECT_EQ(both.free_bytes, 19 * kGiB);
  EXPECT_TRUE(Room({{1, 12 * kGiB, 20 * kGiB}, {2, 12 * kGiB, 19 * kGiB}}).suffices());
}

TEST(SnapshotRoom, TheMachineWithTheLeastToSpareDecides) {
  const SnapshotRoom room =
      Room({{7, kGiB, 64 * kGiB}, {8, 3 * kGiB, 4 * kGiB}, {7, kGiB, 64 * kGiB}, {8, 3 * kGiB, 5 * kGiB}});
  EXPECT_FALSE(room.suffices());
  EXPECT_EQ(room.lowest_rank, 1);
  EXPECT_EQ(room.needed_bytes, 6 * kGiB);
  EXPECT_EQ(room.free_bytes, 4 * kGiB);
  EXPECT_EQ(room.Describe(), "a snapshot needs 6144 MiB on the machine of rank 1, 4096 MiB are free");
}

TEST(SnapshotRoom, SomeIsLeftForOthers) {
  EXPECT_FALSE(Room({{1, 0, 0}}).suffices());
  EXPECT_FALSE(Room({{1, kGiB, kGiB + (kGiB >> 2)}}).suffices()) << "512 MiB at least";
  EXPECT_TRUE(Room({{1, kGiB, 2 * kGiB}}).suffices());
  EXPECT_FALSE(Room({{1, 95 * kGiB, 100 * kGiB}}).suffices()) << "a sixteenth at least";
  EXPECT_TRUE(Room({{1, 93 * kGiB, 100 * kGiB}}).suffices());
}

TEST(ShardSnapshot, HoldsTheShardAsItWasAtTheWidthOfItsTensors) {
  constexpr int64_t kDim = 33;
  for (const StateType type : {StateType::kFloat32, StateType::kBfloat16}) {
    EngineOptions options = {.shard = {5, 301}, .dim = kDim};
    options.optimizer.momentum = 0.9;
    options.optimizer.state_type = type;
    const auto made = MakeEngine(EngineKind::kCpu, options);
    ASSERT_TRUE(made.ok()) << made.status();
    Engine& engine = *made->engine;
    ASSERT_TRUE(DrawWeights(engine, 3, 1).ok());
    std::vector<float> momentum(301 * kDim);
    for (size_t i = 0; i < momentum.size(); ++i) momentum[i] = static_cast<float>(i % 255);
    ASSERT_TRUE(engine.WriteRows("momentum", options.shard, {momentum.data(), 301, kDim}).ok());
    std::vector<float> weight(301 * kDim);
    ASSERT_TRUE(engine.ReadRows("weight", options.shard, {weight.data(), 301, kDim}).ok());

    const auto snapshot = ShardSnapshot::Take(engine);
    ASSERT_TRUE(snapshot.ok()) << snapshot.status();
    EXPECT_EQ(ShardSnapshot::BytesOf(options), 301 * kDim * (type == StateType::kBfloat16 ? 6 : 8));
    const std::vector<float> zeros(301 * kDim);
    for (const char* name : {"weight", "momentum"}) {
      ASSERT_TRUE(engine.WriteRows(name, options.shard, {zeros.data(), 301, kDim}).ok());
    }
    std::vector<float> read(100 * kDim);
    const MatrixView<float> rows = {read.data(), 100, kDim};
    ASSERT_TRUE(snapshot->ReadRows("weight", {105, 100}, rows).ok());
    EXPECT_TRUE(std::equal(read.begin(), read.end(), weight.begin() + 100 * kDim));
    ASSERT_TRUE(snapshot->ReadRows("momentum", {105, 100}, rows).ok());
    EXPECT_TRUE(std::equal(read.begin(), read.end(), momentum.begin() + 100 * kDim));
    EXPECT_EQ(Message(snapshot->ReadRows("exp_avg", {105, 100}, rows)), "the snapshot has no tensor 'exp_avg'");
  }
}

TEST(ShardSnapshot, HoldsTheGraphAsItWas) {
  const EngineOptions options = {.shard = {5, 30}, .dim = 4};
  const auto made = MakeEngine(EngineKind::kCpu, options);
  ASSERT_TRUE(made.ok()) << made.status();
  auto graph = NeighbourGraph::Allocate(options.shard, 100, 3);
  ASSERT_TRUE(graph.ok());
  std::ranges::fill(graph->rows().flat(), 77);
  const auto snapshot = ShardSnapshot::Take(*made->engine, &*graph);
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(ShardSnapshot::BytesOf(options, 3), 30 * (4 * 4 + 3 * 4));
  std::ranges::fill(graph->rows().flat(), 78);
  std::vector<float> bits(6);
  ASSERT_TRUE(snapshot->ReadRows("neighbours", {9, 2}, {bits.data(), 2, 3}).ok());
  for (const float value : bits) EXPECT_EQ(std::bit_cast<int32_t>(value), 77);
}

}  // namespace
}  // namespace shardmax
