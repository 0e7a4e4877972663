// What goes wrong while a checkpoint is written: every rank learns it, and the one before stays.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/checkpoint/small_checkpoint.h"
#include "tests/data/file_size_limit.h"
#include "tests/data/temp_folder.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"
#include "worker/checkpoint/checkpoint.h"

namespace shardmax {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

class CheckpointFailureTest : public ::testing::Test {
 protected:
  CheckpointFailureTest() {
    SpawnRanks(2, [&](Communicator& comm) { return WriteSample(comm, temp_.path(), 10, 1); });
  }

  // Expects that only the checkpoint of step 10 is there, whole.
  void ExpectIntact() {
    EXPECT_THAT(NamesIn(temp_.path()), ElementsAre("step-00000010"));
    SpawnRanks(2, [&](Communicator& comm) -> absl::Status {
      SHARDMAX_ASSIGN_OR_RETURN(const NewestCheckpoint newest, FindNewestValid(comm, temp_.path()));
      EXPECT_EQ(newest.folder, temp_.path("step-00000010"));
      EXPECT_TRUE(newest.rejected.empty());
      SHARDMAX_ASSIGN_OR_RETURN(const CheckpointReader reader, CheckpointReader::Open(newest.folder));
      return CheckSample(reader, {0, kClasses});
    });
  }

  // The statuses of 3 ranks that write `step`.
  std::vector<absl::Status> WriteOnThree(int32_t step, const std::function<ReadShardRows(int rank)>& rows_of) {
    std::vector<absl::Status> statuses(3);
    SpawnRanks(3, [&](Communicator& comm) {
      statuses[comm.rank()] =
          WriteCheckpoint(comm, temp_.path(), SampleManifest(step), BalancedPart(kClasses, comm.rank(), comm.size()),
                          rows_of(comm.rank()), 1);
    });
    return statuses;
  }

  const TempFolder temp_;
};

TEST_F(CheckpointFailureTest, OneRanksErrorFailsAllAndLeavesTheOneBefore) {
  for (int32_t step : {20, 10}) {
    const auto rows_of = [step](int rank) -> ReadShardRows {
      if (rank != 1) return SampleRows(step);
      return [](const std::string& name, Range, MatrixView<float>) {
        return name == "momentum" ? absl::InternalError("the engine has no momentum") : absl::OkStatus();
      };
    };
    for (const absl::Status& status : WriteOnThree(step, rows_of)) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << "step " << step;
      EXPECT_EQ(Message(status), "rank 1: the engine has no momentum") << "step " << step;
    }
    ExpectIntact();
  }
}

TEST_F(CheckpointFailureTest, FullDiskFailsAllAndLeavesTheOneBefore) {
  // Shards of 1000 classes do not fit below the limit; the manifest would.
  shardmax::v1::Manifest manifest = SampleManifest(20);
  manifest.set_num_classes(2000);
  std::vector<absl::Status> statuses(2);
  {
    const FileSizeLimit limit(10'000);
    SpawnRanks(2, [&](Communicator& comm) {
      statuses[comm.rank()] = WriteCheckpoint(comm, temp_.path(), manifest,
                                              BalancedPart(2000, comm.rank(), comm.size()), SampleRows(20), 1);
    });
  }
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(Message(status),
              "rank 0: " + temp_.path(".tmp-step-00000020/classes-00000000-00000999.safetensors") + ": File too large");
  }
  ExpectIntact();
}

TEST_F(CheckpointFailureTest, FullDiskForTheManifestFailsToo) {
  // Files of one class each: the manifest is the largest by far.
  constexpr int kMany = 20;
  shardmax::v1::Manifest manifest = SampleManifest(20);
  manifest.set_num_classes(kMany);
  std::vector<absl::Status> statuses(kMany);
  {
    const FileSizeLimit limit(2'000);
    SpawnRanks(kMany, [&](Communicator& comm) {
      statuses[comm.rank()] = WriteCheckpoint(comm, temp_.path(), manifest, {comm.rank(), 1}, SampleRows(20), 1);
    });
  }
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(Message(status), "rank 0: " + temp_.path(".tmp-step-00000020/manifest.json") + ": File too large");
  }
  ExpectIntact();
}

TEST_F(CheckpointFailureTest, ShardsThatDoNotTileTheClassesAreRefused) {
  std::vector<absl::Status> statuses(2);
  SpawnRanks(2, [&](Communicator& comm) {
    statuses[comm.rank()] =
        WriteCheckpoint(comm, temp_.path(), SampleManifest(20), {comm.rank() * 4, 3}, SampleRows(20), 1);
  });
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(Message(status), "rank 0: checkpoint: files[1].first_class is 4: 3 must follow");
  }
  ExpectIntact();
}

TEST_F(CheckpointFailureTest, WrongArgumentsOfOneRankFailAll) {
  std::vector<absl::Status> statuses(2);
  const auto write = [&](Range shard_of_1, int keep_of_1, int32_t dim_of_1) {
    SpawnRanks(2, [&](Communicator& comm) {
      const bool one = comm.rank() == 1;
      shardmax::v1::Manifest manifest = SampleManifest(20);
      if (one) manifest.set_dim(dim_of_1);
      statuses[comm.rank()] = WriteCheckpoint(comm, temp_.path(), manifest, one ? shard_of_1 : Range{0, 4},
                                              SampleRows(20), one ? keep_of_1 : 1);
    });
    EXPECT_EQ(statuses[0], statuses[1]);
    return Message(statuses[0]);
  };
  EXPECT_EQ(write({4, 4}, 1, kDim), "rank 1: checkpoint: the shard of 4 classes from 4 on is not inside [0, 7)");
  EXPECT_EQ(write({4, 0}, 1, kDim), "rank 1: checkpoint: the shard of 0 classes from 4 on is not inside [0, 7)");
  EXPECT_EQ(write({4, 3}, 0, kDim), "rank 1: checkpoint.keep is 0: 1 or more is needed");
  EXPECT_EQ(write({4, 3}, 1, 0), "rank 1: checkpoint: dim is 0: allowed is 1 to 65536");
  ExpectIntact();
}

TEST(WriteCheckpointFailure, AFileInThePlaceOfTheFolderIsNamed) {
  const TempFolder temp;
  const std::string dir = temp.Write("checkpoints", "not a folder");
  std::vector<absl::Status> statuses(2);
  SpawnRanks(2, [&](Communicator& comm) { statuses[comm.rank()] = WriteSample(comm, dir, 10); });
  for (const absl::Status& status : statuses) EXPECT_EQ(Message(status), "rank 0: " + dir + ": Not a directory");
  SpawnRanks(2, [&](Communicator& comm) { statuses[comm.rank()] = WriteSample(comm, dir + "/below", 10); });
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(Message(status), "rank 0: " + dir + "/below: Not a directory");
  }
}

TEST(WriteCheckpointFailure, ALostRankLeavesNoCheckpoint) {
  const TempFolder temp;
  std::vector<absl::Status> statuses(2);
  SpawnRanks(3, [&](ThreadCommunicator& comm) {
    const auto rows = [&](const std::string& name, Range classes, MatrixView<float> out) {
      if (comm.rank() == 2) comm.Abort();
      return SampleRows(10)(name, classes, out);
    };
    const absl::Status status = WriteCheckpoint(comm, temp.path(), SampleManifest(10),
                                                BalancedPart(kClasses, comm.rank(), comm.size()), rows, 1);
    if (comm.rank() < 2) statuses[comm.rank()] = status;
  });
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(Message(status), HasSubstr("rank 2"));
  }
  EXPECT_FALSE(fs::exists(temp.path("step-00000010")));
}

}  // namespace
}  // namespace shardmax
