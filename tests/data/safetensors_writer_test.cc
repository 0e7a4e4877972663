#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "tests/data/file_size_limit.h"
#include "tests/data/temp_folder.h"
#include "worker/base/status.h"
#include "worker/data/safetensors.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;

TEST(SafetensorsWriter, WritesWhatTheReaderReads) {
  const TempFolder folder;
  const std::string path = folder.path("w.safetensors");
  std::vector<float> values(10);
  std::iota(values.begin(), values.end(), 0.5f);
  absl::StatusOr<SafetensorsWriter> writer =
      SafetensorsWriter::Create(path, {{"weight", {3, 2}}, {"momentum", {2, 2}}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  // Pieces that do not end where tensors end.
  ASSERT_TRUE(writer->Append(std::span(values).first(7)).ok());
  ASSERT_TRUE(writer->Append(std::span(values).subspan(7)).ok());
  const absl::StatusOr<std::string> checksum = writer->Finish();
  ASSERT_TRUE(checksum.ok()) << checksum.status();

  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->CheckMatrix("weight", 3, 2).ok());
  EXPECT_TRUE(file->CheckMatrix("momentum", 2, 2).ok());
  std::vector<float> read(10);
  ASSERT_TRUE(file->ReadRows("weight", {0, 3}, {read.data(), 3, 2}).ok());
  ASSERT_TRUE(file->ReadRows("momentum", {0, 2}, {read.data() + 6, 2, 2}).ok());
  EXPECT_EQ(read, values);
}

TEST(SafetensorsWriter, WritesBfloat16BesideFloat32InPiecesAcrossTensors) {
  const TempFolder folder;
  const std::string path = folder.path("w");
  auto writer = SafetensorsWriter::Create(path, {{"weight", {2, 1}}, {"momentum", {3, 1}, "BF16"}, {"last", {1, 1}}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  const std::vector<float> values = {1.001F, 2, 1 + 0.4F / 128, -3, 4, 1.001F};
  ASSERT_TRUE(writer->Append(std::span(values).first(3)).ok());
  ASSERT_TRUE(writer->Append(std::span(values).subspan(3)).ok());
  ASSERT_TRUE(writer->Finish().ok());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->CheckMatrix("momentum", 3, 1, "BF16").ok());
  EXPECT_THAT(Message(file->CheckMatrix("momentum", 3, 1)), HasSubstr("is BF16 [3, 1], F32 [3, 1] is needed"));
  std::vector<float> read(3);
  ASSERT_TRUE(file->ReadRows("momentum", {0, 3}, {read.data(), 3, 1}).ok());
  EXPECT_THAT(read, testing::ElementsAre(1, -3, 4));
  ASSERT_TRUE(file->ReadRows("momentum", {1, 2}, {read.data(), 2, 1}).ok());
  EXPECT_EQ(read[0], -3);
  ASSERT_TRUE(file->ReadRows("last", {0, 1}, {read.data(), 1, 1}).ok());
  EXPECT_EQ(read[0], 1.001F);
}

TEST(SafetensorsWriter, ChecksumIsThatOfTheFile) {
  const TempFolder folder;
  absl::StatusOr<SafetensorsWriter> writer = SafetensorsWriter::Create(folder.path("w"), {{"weight", {1, 3}}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Append(std::vector<float>{1, 2, 3}).ok());
  const absl::StatusOr<std::string> checksum = writer->Finish();
  ASSERT_TRUE(checksum.ok()) << checksum.status();
  Checksum expected;
  const std::string content = TempFolder::ReadAll(folder.path("w"));
  expected.Update(std::as_bytes(std::span(content)));
  EXPECT_EQ(*checksum, expected.Text());
}

TEST(SafetensorsWriter, DataSectionIsAligned) {
  const TempFolder folder;
  for (int length = 1; length <= 8; ++length) {
    auto writer = SafetensorsWriter::Create(folder.path("w"), {{std::string(length, 'a'), {0, 1}}});
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE(writer->Finish().ok());
    EXPECT_EQ(TempFolder::ReadAll(folder.path("w")).size() % 8, 0u) << "name of " << length;
  }
}

TEST(SafetensorsWriter, KnowsHowManyValuesItNeeds) {
  const TempFolder folder;
  absl::StatusOr<SafetensorsWriter> writer = SafetensorsWriter::Create(folder.path("w"), {{"weight", {1, 3}}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  const std::vector<float> two = {1, 2};
  ASSERT_TRUE(writer->Append(two).ok());
  EXPECT_EQ(Message(writer->Append(two)), folder.path("w") + ": 2 values are appended, there is room for 1");
  EXPECT_EQ(Message(writer->Finish().status()), folder.path("w") + ": 1 values are missing");
}

TEST(SafetensorsWriter, FullDiskNamesTheFile) {
  auto writer = SafetensorsWriter::Create("/dev/full", {{"weight", {1, 3}}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Append(std::vector<float>{1, 2, 3}).ok());
  const absl::Status status = writer->Finish().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Message(status), "/dev/full: No space left on device");
}

TEST(SafetensorsWriter, FileTooLargeNamesTheFile) {
  const TempFolder folder;
  absl::Status status;
  {
    const FileSizeLimit limit(20'000);
    // Before anything is written: the room is reserved.
    status = SafetensorsWriter::Create(folder.path("w"), {{"weight", {1000, 10}}}).status();
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Message(status), folder.path("w") + ": File too large");
}

TEST(SafetensorsWriter, MissingFolderIsNamed) {
  EXPECT_THAT(Message(SafetensorsWriter::Create("/nowhere/w", {}).status()), HasSubstr("/nowhere/w: No such file"));
}

}  // namespace
}  // namespace shardmax
