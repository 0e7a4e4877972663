// Where a job keeps its cosines.
#include "worker/training_plan.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>

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

}  // namespace
}  // namespace shardmax
