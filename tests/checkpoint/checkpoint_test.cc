#include "worker/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "tests/checkpoint/small_checkpoint.h"
#include "tests/data/temp_folder.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

TEST(WriteCheckpoint, WritesTheFilesThatTheContractNames) {
  const TempFolder temp;
  SpawnRanks(3, [&](Communicator& comm) { return WriteSample(comm, temp.path("job/checkpoints"), 1000); });
  EXPECT_THAT(NamesIn(temp.path("job/checkpoints")), ElementsAre("step-00001000"));
  EXPECT_THAT(NamesIn(temp.path("job/checkpoints/step-00001000")),
              ElementsAre("classes-00000000-00000002.safetensors", "classes-00000003-00000004.safetensors",
                          "classes-00000005-00000006.safetensors", "manifest.json"));
  const std::string json = TempFolder::ReadAll(temp.path("job/checkpoints/step-00001000/manifest.json"));
  EXPECT_THAT(json, HasSubstr("\"format_version\": 1"));
  EXPECT_THAT(json, HasSubstr("\"path\": \"classes-00000000-00000002.safetensors\""));
  EXPECT_THAT(json, HasSubstr("\"first_class\": 0"));
  EXPECT_THAT(json, HasSubstr("\"checksum\": \"xxh3_128:"));
}

TEST(WriteCheckpoint, RoundTripsFromOneRankToThreeToTwo) {
  const TempFolder temp;
  const std::string dir = temp.path("checkpoints");
  int32_t step = 0;
  for (int ranks : {1, 3, 2}) {
    // Each size reads its shards of what the size before has written, and writes them again.
    const int32_t from = step;
    step += 10;
    SpawnRanks(ranks, [&](Communicator& comm) -> absl::Status {
      const Range shard = BalancedPart(kClasses, comm.rank(), comm.size());
      if (from == 0) return WriteSample(comm, dir, step);
      SHARDMAX_ASSIGN_OR_RETURN(const NewestCheckpoint newest, FindNewestValid(comm, dir));
      EXPECT_EQ(newest.folder, fmt::format("{}/step-{:08}", dir, from));
      EXPECT_TRUE(newest.rejected.empty());
      SHARDMAX_ASSIGN_OR_RETURN(const CheckpointReader reader, CheckpointReader::Open(newest.folder));
      SHARDMAX_RETURN_IF_ERROR(CheckSample(reader, shard));
      return WriteSample(comm, dir, step);
    });
    const absl::StatusOr<CheckpointReader> reader = CheckpointReader::Open(fmt::format("{}/step-{:08}", dir, step));
    ASSERT_TRUE(reader.ok()) << reader.status();
    EXPECT_EQ(reader->manifest().files_size(), ranks);
    for (int64_t first = 0; first < kClasses; ++first) {
      for (int64_t count = 0; count <= kClasses - first; ++count) {
        EXPECT_TRUE(CheckSample(*reader, {first, count}).ok()) << CheckSample(*reader, {first, count});
      }
    }
  }
}

TEST(WriteCheckpoint, StreamsAShardThatIsLargerThanAChunk) {
  constexpr int32_t kRows = 2500;
  constexpr int32_t kWide = 1024;
  const TempFolder temp;
  shardmax::v1::Manifest manifest = SampleManifest(1);
  manifest.set_num_classes(kRows);
  manifest.set_dim(kWide);
  manifest.clear_tensors();
  manifest.add_tensors("weight");
  int64_t largest = 0;
  const auto read_rows = [&](const std::string&, Range classes, MatrixView<float> out) {
    largest = std::max(largest, out.rows);
    for (int64_t i = 0; i < out.rows; ++i) {
      std::fill(out.row(i).begin(), out.row(i).end(), static_cast<float>(classes.first + i));
    }
    return absl::OkStatus();
  };
  SpawnRanks(1, [&](Communicator& comm) {
    return WriteCheckpoint(comm, temp.path(), manifest, {0, kRows}, read_rows, 1);
  });
  EXPECT_EQ(largest, 64) << "rows of 4 KiB in a chunk of 256 KiB";
  const absl::StatusOr<CheckpointReader> reader = CheckpointReader::Open(temp.path("step-00000001"));
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_TRUE(reader->VerifyFile(0).ok());
  std::vector<float> rows(size_t{kRows} * kWide);
  ASSERT_TRUE(reader->Read("weight", {0, kRows}, {rows.data(), kRows, kWide}).ok());
  for (int64_t i = 0; i < kRows; ++i) {
    ASSERT_EQ(rows[i * kWide], i);
    ASSERT_EQ(rows[(i + 1) * kWide - 1], i);
  }
}

TEST(WriteCheckpoint, KeepsTheNewest) {
  const TempFolder temp;
  SpawnRanks(2, [&](Communicator& comm) -> absl::Status {
    for (int32_t step : {10, 20, 30, 40}) SHARDMAX_RETURN_IF_ERROR(WriteSample(comm, temp.path(), step, 2));
    return absl::OkStatus();
  });
  EXPECT_THAT(NamesIn(temp.path()), ElementsAre("step-00000030", "step-00000040"));
}

TEST(WriteCheckpoint, NeverRemovesTheOneJustWritten) {
  const TempFolder temp;
  SpawnRanks(1, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_RETURN_IF_ERROR(WriteSample(comm, temp.path(), 30, 1));
    return WriteSample(comm, temp.path(), 20, 1);  // Resumed from before step 20, as 30 was damaged.
  });
  EXPECT_THAT(NamesIn(temp.path()), ElementsAre("step-00000020", "step-00000030"));
}

TEST(WriteCheckpoint, ReplacesTheSameStep) {
  const TempFolder temp;
  SpawnRanks(3, [&](Communicator& comm) { return WriteSample(comm, temp.path(), 10); });
  SpawnRanks(1, [&](Communicator& comm) { return WriteSample(comm, temp.path(), 10); });
  EXPECT_THAT(NamesIn(temp.path()), ElementsAre("step-00000010"));
  EXPECT_THAT(NamesIn(temp.path("step-00000010")),
              ElementsAre("classes-00000000-00000006.safetensors", "manifest.json"));
  const absl::StatusOr<CheckpointReader> reader = CheckpointReader::Open(temp.path("step-00000010"));
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_TRUE(CheckSample(*reader, {0, kClasses}).ok());
}

TEST(WriteCheckpoint, CleansUpWhatInterruptedWritesLeft) {
  const TempFolder temp;
  for (const char* name : {".tmp-step-00000010", ".tmp-step-00000005", ".gone-step-00000003", ".tmp-of-the-user"}) {
    fs::create_directory(temp.path(name));
    temp.Write(std::string(name) + "/classes-00000000-00000000.safetensors", "half");
  }
  SpawnRanks(2, [&](Communicator& comm) { return WriteSample(comm, temp.path(), 10); });
  EXPECT_THAT(NamesIn(temp.path()), ElementsAre(".tmp-of-the-user", "step-00000010"));
  EXPECT_THAT(NamesIn(temp.path("step-00000010")).size(), 3u);
}

TEST(WriteCheckpoint, LargeStepsHaveMoreDigits) {
  const TempFolder temp;
  SpawnRanks(1, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_RETURN_IF_ERROR(WriteSample(comm, temp.path(), 99'999'999));
    SHARDMAX_RETURN_IF_ERROR(WriteSample(comm, temp.path(), 2'147'483'647));
    SHARDMAX_ASSIGN_OR_RETURN(const NewestCheckpoint newest, FindNewestValid(comm, temp.path()));
    EXPECT_EQ(newest.folder, temp.path("step-2147483647"));
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace shardmax
