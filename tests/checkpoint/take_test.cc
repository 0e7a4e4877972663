// What a rank takes from a checkpoint that any number of ranks wrote.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <tuple>

#include "tests/checkpoint/small_checkpoint.h"
#include "tests/data/temp_folder.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"
#include "worker/checkpoint/checkpoint.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;

// Tensor, class, column.
using Values = std::map<std::tuple<std::string, int64_t, int64_t>, float>;

class TakeCheckpointTest : public ::testing::Test {
 protected:
  void Write(int ranks) {
    SpawnRanks(ranks, [&](Communicator& comm) { return WriteSample(comm, temp_.path(), 10); });
  }

  // What each of `ranks` takes.
  std::vector<Values> Take(int ranks, std::vector<absl::Status>& statuses) {
    std::vector<Values> taken(static_cast<size_t>(ranks));
    statuses.resize(static_cast<size_t>(ranks));
    SpawnRanks(ranks, [&](Communicator& comm) -> absl::Status {
      SHARDMAX_ASSIGN_OR_RETURN(const CheckpointReader reader, CheckpointReader::Open(temp_.path("step-00000010")));
      Values& mine = taken[static_cast<size_t>(comm.rank())];
      statuses[static_cast<size_t>(comm.rank())] = TakeCheckpoint(
          comm, reader, [&](int rank) { return BalancedPart(kClasses, rank, comm.size()); },
          [&](const std::string& name, Range classes, MatrixView<const float> rows) {
            for (int64_t i = 0; i < rows.rows; ++i) {
              for (int64_t d = 0; d < rows.cols; ++d) {
                EXPECT_TRUE(mine.emplace(std::tuple(name, classes.first + i, d), rows.row(i)[d]).second) << "twice";
              }
            }
            return absl::OkStatus();
          });
      return absl::OkStatus();
    });
    return taken;
  }

  const TempFolder temp_;
};

TEST_F(TakeCheckpointTest, AnyNumberOfRanksTakesTheRowsOfItsShardsOnce) {
  for (const int writers : {1, 2, 3}) {
    Write(writers);
    for (const int ranks : {1, 2, 3, 5}) {
      std::vector<absl::Status> statuses;
      const std::vector<Values> taken = Take(ranks, statuses);
      for (int rank = 0; rank < ranks; ++rank) {
        ASSERT_TRUE(statuses[static_cast<size_t>(rank)].ok()) << statuses[static_cast<size_t>(rank)];
        const Range shard = BalancedPart(kClasses, rank, ranks);
        const Values& values = taken[static_cast<size_t>(rank)];
        EXPECT_EQ(values.size(), static_cast<size_t>(2 * shard.count * kDim));
        for (const auto& [key, value] : values) {
          const auto& [name, class_id, column] = key;
          EXPECT_TRUE(shard.contains(class_id));
          EXPECT_EQ(value, SampleValue(name, 10, class_id, column)) << writers << " writers, " << ranks << " ranks";
        }
      }
    }
  }
}

TEST_F(TakeCheckpointTest, DamageIsFoundByEveryRankWhetherFilesAreTakenWholeOrInParts) {
  Write(2);
  const std::string name = "step-00000010/classes-00000004-00000006.safetensors";
  std::string bytes = TempFolder::ReadAll(temp_.path(name));
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  temp_.Write(name, bytes);
  for (const int ranks : {1, 2, 5}) {
    std::vector<absl::Status> statuses;
    Take(ranks, statuses);
    for (const absl::Status& status : statuses) {
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << ranks << " ranks";
      EXPECT_THAT(Message(status), HasSubstr("classes-00000004-00000006.safetensors: checksum is"));
    }
  }
}

TEST_F(TakeCheckpointTest, AnErrorOfTheTakerIsThatOfAllRanks) {
  Write(2);
  std::vector<absl::Status> statuses(2);
  SpawnRanks(2, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const CheckpointReader reader, CheckpointReader::Open(temp_.path("step-00000010")));
    statuses[static_cast<size_t>(comm.rank())] = TakeCheckpoint(
        comm, reader, [&](int rank) { return BalancedPart(kClasses, rank, comm.size()); },
        [&](const std::string& name, Range, MatrixView<const float>) {
          return comm.rank() == 1 && name == "momentum" ? absl::InternalError("no room") : absl::OkStatus();
        });
    return absl::OkStatus();
  });
  for (const absl::Status& status : statuses) EXPECT_EQ(Message(status), "rank 1: no room");
}

}  // namespace
}  // namespace shardmax
