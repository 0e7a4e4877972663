#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "tests/checkpoint/small_checkpoint.h"
#include "tests/data/safetensors_builder.h"
#include "tests/data/temp_folder.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"
#include "worker/checkpoint/checkpoint.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr char kSecondFile[] = "classes-00000004-00000006.safetensors";

class CheckpointReaderTest : public ::testing::Test {
 protected:
  CheckpointReaderTest() {
    SpawnRanks(2, [&](Communicator& comm) { return WriteSample(comm, temp_.path(), 10); });
  }

  std::string Second() const { return folder_ + "/" + kSecondFile; }
  std::string OpenError() const { return Message(CheckpointReader::Open(folder_).status()); }
  void ReplaceSecond(const std::string& bytes) const {
    temp_.Write("step-00000010/" + std::string(kSecondFile), bytes);
  }

  const TempFolder temp_;
  const std::string folder_ = temp_.path("step-00000010");
};

TEST_F(CheckpointReaderTest, FilesMatchTheirChecksums) {
  const absl::StatusOr<CheckpointReader> reader = CheckpointReader::Open(folder_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(reader->folder(), folder_);
  EXPECT_TRUE(reader->VerifyFile(0).ok());
  EXPECT_TRUE(reader->VerifyFile(1).ok());
}

TEST_F(CheckpointReaderTest, AFlippedBitIsDataLoss) {
  std::string bytes = TempFolder::ReadAll(Second());
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  ReplaceSecond(bytes);
  const absl::StatusOr<CheckpointReader> reader = CheckpointReader::Open(folder_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_TRUE(reader->VerifyFile(0).ok());
  const absl::Status status = reader->VerifyFile(1);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Message(status), HasSubstr(Second() + ": checksum is xxh3_128:"));
  EXPECT_THAT(Message(status), HasSubstr("the manifest says " + reader->manifest().files(1).checksum()));
}

TEST_F(CheckpointReaderTest, RefusesATruncatedFile) {
  fs::resize_file(Second(), fs::file_size(Second()) - 1);
  EXPECT_THAT(OpenError(), HasSubstr(Second() + ": truncated: tensor \"momentum\" needs 36 bytes"));
  fs::resize_file(Second(), 20);
  EXPECT_THAT(OpenError(), HasSubstr(Second() + ": truncated or not a safetensors file"));
  fs::resize_file(Second(), 0);
  EXPECT_EQ(OpenError(), Second() + ": is 0 bytes long, too short for a safetensors file");
}

TEST_F(CheckpointReaderTest, RefusesAHeaderThatClaimsTooMuch) {
  std::string bytes = TempFolder::ReadAll(Second());
  const uint64_t huge = uint64_t{1} << 60;
  std::memcpy(bytes.data(), &huge, sizeof(huge));
  ReplaceSecond(bytes);
  EXPECT_THAT(OpenError(), HasSubstr("the header claims 1152921504606846976 bytes"));
}

TEST_F(CheckpointReaderTest, RefusesTensorsThatTheManifestDoesNotSay) {
  ReplaceSecond(SafetensorsBytes(OneTensor("F32", "[3,3]", "[0,36]"), std::string(36, '\0')));
  EXPECT_EQ(OpenError(), Second() + ": has no tensor \"momentum\", F32 [3, 3] is needed");
  ReplaceSecond(SafetensorsBytes(OneTensor("F16", "[3,6]", "[0,36]"), std::string(36, '\0')));
  EXPECT_EQ(OpenError(), Second() + ": tensor \"weight\" is F16 [3, 6], F32 [3, 3] is needed");
  ReplaceSecond(SafetensorsBytes(R"({"weight":{"dtype":"F32","shape":[3,3],"data_offsets":[0,36]},)"
                                 R"("momentum":{"dtype":"F32","shape":[3,3],"data_offsets":[36,72]},)"
                                 R"("extra":{"dtype":"F32","shape":[1],"data_offsets":[72,76]}})",
                                 std::string(76, '\0')));
  EXPECT_EQ(OpenError(), Second() + ": has 3 tensors, the manifest says 2");
}

TEST_F(CheckpointReaderTest, RefusesAMissingFile) {
  fs::remove(Second());
  const absl::Status status = CheckpointReader::Open(folder_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Message(status), Second() + ": No such file or directory");
}

TEST_F(CheckpointReaderTest, RefusesALinkInThePlaceOfAFile) {
  fs::rename(Second(), temp_.path("elsewhere"));
  fs::create_symlink(temp_.path("elsewhere"), Second());
  EXPECT_EQ(OpenError(), Second() + ": is a symbolic link, a regular file is needed");
}

TEST_F(CheckpointReaderTest, RefusesReadsThatCannotBe) {
  const absl::StatusOr<CheckpointReader> reader = CheckpointReader::Open(folder_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  std::vector<float> rows(size_t{kClasses} * kDim);
  const auto error = [&](const std::string& name, Range classes, int64_t out_rows, int64_t out_cols) {
    const absl::Status status = reader->Read(name, classes, {rows.data(), out_rows, out_cols});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return Message(status);
  };
  EXPECT_EQ(error("exp_avg", {0, 1}, 1, kDim), folder_ + ": has no tensor \"exp_avg\"");
  EXPECT_EQ(error("weight", {5, 3}, 3, kDim), folder_ + ": has 7 classes, 3 from 5 on are wanted");
  EXPECT_EQ(error("weight", {-1, 3}, 3, kDim), folder_ + ": has 7 classes, 3 from -1 on are wanted");
  EXPECT_EQ(error("weight", {0, 3}, 2, kDim), folder_ + ": 3 classes are [3, 3], the matrix to fill is [2, 3]");
  EXPECT_EQ(error("weight", {0, 3}, 3, 2), folder_ + ": 3 classes are [3, 3], the matrix to fill is [3, 2]");
}

}  // namespace
}  // namespace shardmax
