#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/checkpoint/small_checkpoint.h"
#include "tests/data/temp_folder.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"
#include "worker/checkpoint/checkpoint.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
namespace fs = std::filesystem;

class FindNewestValidTest : public ::testing::Test {
 protected:
  FindNewestValidTest() {
    SpawnRanks(3, [&](Communicator& comm) -> absl::Status {
      for (int32_t step : {10, 20, 30}) SHARDMAX_RETURN_IF_ERROR(WriteSample(comm, temp_.path(), step));
      return absl::OkStatus();
    });
  }

  // What every one of `ranks` finds.
  NewestCheckpoint Find(int ranks = 2) {
    std::vector<NewestCheckpoint> found(ranks);
    SpawnRanks(ranks, [&](Communicator& comm) -> absl::Status {
      SHARDMAX_ASSIGN_OR_RETURN(found[comm.rank()], FindNewestValid(comm, temp_.path()));
      return absl::OkStatus();
    });
    for (const NewestCheckpoint& other : found) {
      EXPECT_EQ(other.folder, found[0].folder);
      EXPECT_EQ(other.rejected, found[0].rejected);
    }
    return found[0];
  }

  void Damage(const std::string& name) {
    std::string bytes = TempFolder::ReadAll(temp_.path(name));
    ASSERT_FALSE(bytes.empty()) << name;
    bytes.back() = static_cast<char>(bytes.back() ^ 1);
    temp_.Write(name, bytes);
  }

  const TempFolder temp_;
};

TEST_F(FindNewestValidTest, TakesTheNewest) {
  for (int ranks : {1, 2, 5}) {
    EXPECT_EQ(Find(ranks).folder, temp_.path("step-00000030")) << ranks << " ranks";
    EXPECT_TRUE(Find(ranks).rejected.empty());
  }
}

TEST_F(FindNewestValidTest, FallsBackToAnOlderOneAndSaysWhy) {
  Damage("step-00000030/classes-00000005-00000006.safetensors");
  fs::resize_file(temp_.path("step-00000020/classes-00000000-00000002.safetensors"), 100);
  for (int ranks : {1, 2, 4}) {
    const NewestCheckpoint newest = Find(ranks);
    EXPECT_EQ(newest.folder, temp_.path("step-00000010"));
    ASSERT_EQ(newest.rejected.size(), 2u);
    EXPECT_THAT(newest.rejected[0], StartsWith(temp_.path("step-00000030") + " is not valid: rank "));
    EXPECT_THAT(newest.rejected[0], HasSubstr("classes-00000005-00000006.safetensors: checksum is "));
    EXPECT_THAT(newest.rejected[1], StartsWith(temp_.path("step-00000020") + " is not valid: rank 0: "));
    EXPECT_THAT(newest.rejected[1], HasSubstr("truncated"));
  }
}

TEST_F(FindNewestValidTest, EveryFileIsVerified) {
  for (const char* file : {"classes-00000000-00000002", "classes-00000003-00000004", "classes-00000005-00000006"}) {
    const std::string name = fmt::format("step-00000030/{}.safetensors", file);
    Damage(name);
    EXPECT_EQ(Find().folder, temp_.path("step-00000020")) << file;
    Damage(name);  // The same bit again: repaired.
    EXPECT_EQ(Find().folder, temp_.path("step-00000030")) << file;
  }
}

TEST_F(FindNewestValidTest, RejectsFoldersWithoutASoundManifest) {
  fs::create_directory(temp_.path("step-00000050"));
  fs::create_directory(temp_.path("step-00000040"));
  temp_.Write("step-00000040/manifest.json", "rubbish");
  temp_.Write("step-00000060", "a file");
  const NewestCheckpoint newest = Find();
  EXPECT_EQ(newest.folder, temp_.path("step-00000030"));
  ASSERT_EQ(newest.rejected.size(), 3u);
  EXPECT_THAT(newest.rejected[0], HasSubstr("step-00000060/manifest.json: Not a directory"));
  EXPECT_THAT(newest.rejected[1], HasSubstr("step-00000050/manifest.json: No such file"));
  EXPECT_THAT(newest.rejected[2], HasSubstr("step-00000040/manifest.json: is not a manifest"));
}

TEST_F(FindNewestValidTest, IgnoresLeftoversOfInterruptedWrites) {
  fs::rename(temp_.path("step-00000030"), temp_.path(".tmp-step-00000030"));
  EXPECT_EQ(Find().folder, temp_.path("step-00000020"));
  EXPECT_TRUE(Find().rejected.empty());
}

TEST_F(FindNewestValidTest, UndoesAReplacementThatWasInterrupted) {
  fs::rename(temp_.path("step-00000030"), temp_.path(".old-step-00000030"));
  EXPECT_EQ(Find().folder, temp_.path("step-00000030"));
}

TEST_F(FindNewestValidTest, AllInvalidIsNone) {
  for (const char* step : {"10", "20", "30"}) {
    fs::remove(temp_.path(fmt::format("step-000000{}/manifest.json", step)));
  }
  EXPECT_EQ(Find().folder, "");
  EXPECT_EQ(Find().rejected.size(), 3u);
}

TEST(FindNewestValid, AMissingFolderHoldsNone) {
  SpawnRanks(2, [](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const NewestCheckpoint newest, FindNewestValid(comm, "/nowhere/checkpoints"));
    EXPECT_EQ(newest.folder, "");
    EXPECT_TRUE(newest.rejected.empty());
    return absl::OkStatus();
  });
}

TEST(FindNewestValid, AFolderThatCannotBeListedFailsAllRanks) {
  const TempFolder temp;
  const std::string path = temp.Write("checkpoints", "a file");
  SpawnRanks(2, [&](Communicator& comm) {
    EXPECT_EQ(Message(FindNewestValid(comm, path).status()), "rank 0: " + path + ": Not a directory");
  });
}

TEST_F(FindNewestValidTest, ALostRankIsNoVerdictOnACheckpoint) {
  SpawnRanks(2, [&](ThreadCommunicator& comm) {
    if (comm.rank() == 1) return;
    EXPECT_EQ(FindNewestValid(comm, temp_.path()).status().code(), absl::StatusCode::kUnavailable);
  });
}

TEST_F(FindNewestValidTest, ItsNameIsThatOfTheNewestWhetherValidOrNot) {
  EXPECT_EQ(NewestName(temp_.path()).value_or("error"), "step-00000030");
  fs::remove(temp_.path("step-00000030/manifest.json"));
  EXPECT_EQ(NewestName(temp_.path()).value_or("error"), "step-00000030");
  EXPECT_EQ(NewestName(temp_.path("nowhere")).value_or("error"), "");
}

TEST_F(FindNewestValidTest, ItsNameIsThatOfAReplacedOneIfTheWriteWasInterrupted) {
  fs::rename(temp_.path("step-00000030"), temp_.path(".old-step-00000030"));
  EXPECT_EQ(NewestName(temp_.path()).value_or("error"), "step-00000030");
}

}  // namespace
}  // namespace shardmax
