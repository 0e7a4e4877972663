// Where a job keeps its cosines.
#include "worker/training_plan.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>

#include <tuple>

#include "worker/base/status.h"

namespace shardmax {
namespace {

CosineStorage StorageOf(const std::string& fields, int ranks) {
  shardmax::v1::Train train;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(fields, &train)) << fields;
  return CosineStorageOf(train, ranks);
}

TEST(CosineStorage, IsWhatTheJobSaysWhateverItTakes) {
  const std::string sizes = "num_classes: 1000000 batch_size: 256 cosines_memory_mib: 0 ";
  EXPECT_EQ(StorageOf(sizes + "cosines: RECOMPUTE", 1), CosineStorage::kRecompute);
  EXPECT_EQ(StorageOf(sizes + "cosines: KEEP_INT16", 1), CosineStorage::kKeepInt16);
  EXPECT_EQ(StorageOf(sizes + "cosines: KEEP_FLOAT32", 1), CosineStorage::kKeepFloat32);
}

TEST(CosineStorage, IsChosenByPrecisionWhereItFits) {
  // 1 MiB is 1024 classes of 256 columns of 4 bytes; 250 rows are 256 columns.
  const std::string sizes = "batch_size: 250 cosines: AUTO cosines_memory_mib: 1 ";
  EXPECT_EQ(StorageOf(sizes + "precision: FLOAT32 num_classes: 1024", 1), CosineStorage::kKeepFloat32);
  EXPECT_EQ(StorageOf(sizes + "precision: FLOAT32 num_classes: 1025", 1), CosineStorage::kRecompute);
  EXPECT_EQ(StorageOf(sizes + "precision: BFLOAT16 num_classes: 2048", 1), CosineStorage::kKeepInt16);
  EXPECT_EQ(StorageOf(sizes + "precision: BFLOAT16 num_classes: 2049", 1), CosineStorage::kRecompute);
}

TEST(CosineStorage, IsChosenForTheLargestShard) {
  const std::string sizes = "batch_size: 256 cosines: AUTO cosines_memory_mib: 1 precision: FLOAT32 ";
  EXPECT_EQ(StorageOf(sizes + "num_classes: 3072", 3), CosineStorage::kKeepFloat32);
  EXPECT_EQ(StorageOf(sizes + "num_classes: 3073", 3), CosineStorage::kRecompute);
}

TEST(CosineStorage, CountsTheClassesOfAStepOfASampledHead) {
  const std::string sizes = "batch_size: 256 cosines: AUTO cosines_memory_mib: 1 precision: FLOAT32 ";
  EXPECT_EQ(StorageOf(sizes + "num_classes: 10240 sampling { random { rate: 0.1 } }", 1), CosineStorage::kKeepFloat32);
  EXPECT_EQ(StorageOf(sizes + "num_classes: 10250 sampling { random { rate: 0.1 } }", 1), CosineStorage::kRecompute);
}

shardmax::v1::Train Nearest(const std::string& fields) {
  shardmax::v1::Train train;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
      fields + " sampling { nearest { rate: 0.1 neighbours: 9 rebuild_every_steps: 10 } recall_every_steps: 4 }",
      &train))
      << fields;
  return train;
}

TEST(NearestPlan, BuildsBeforeMultiplesAndFirstWhereWeightsAreGiven) {
  const auto drawn = MakeTrainingPlan(Nearest("steps: 25"), 1);
  const auto given = MakeTrainingPlan(Nearest("steps: 25 init { weights: 'w' }"), 1);
  ASSERT_TRUE(drawn.ok() && given.ok());
  EXPECT_EQ(drawn->sample_rate, 0.1);
  EXPECT_EQ(drawn->nearest->neighbours, 9);
  for (const auto& [step, of_drawn, of_given] :
       {std::tuple(0, false, true), {1, false, false}, {10, true, true}, {19, false, false}, {20, true, true}}) {
    EXPECT_EQ(drawn->nearest->BuildsBefore(step), of_drawn) << step;
    EXPECT_EQ(given->nearest->BuildsBefore(step), of_given) << step;
  }
  EXPECT_FALSE(drawn->nearest->IsBuiltAfter(10));
  EXPECT_TRUE(drawn->nearest->IsBuiltAfter(11));
  EXPECT_FALSE(given->nearest->IsBuiltAfter(0));
  EXPECT_TRUE(given->nearest->IsBuiltAfter(1));
  EXPECT_TRUE(drawn->MeasuresRecall(3) && drawn->MeasuresRecall(7));
  EXPECT_FALSE(drawn->MeasuresRecall(0) || drawn->MeasuresRecall(4));
}

TEST(NearestPlan, OfAJobThatEndsBeforeItsFirstGraphIsRefused) {
  EXPECT_EQ(CheckFirstGraph(*MakeTrainingPlan(Nearest("epochs: 2"), 6)), absl::OkStatus());
  const absl::Status status = CheckFirstGraph(*MakeTrainingPlan(Nearest("epochs: 2"), 5));
  EXPECT_EQ(
      Message(status),
      "train.sampling.nearest.rebuild_every_steps is 10: allowed without train.init.weights is less than the steps "
      "of the job, which are 10, as the first graph is built then");
}

}  // namespace
}  // namespace shardmax
