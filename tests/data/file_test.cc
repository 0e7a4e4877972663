#include "worker/data/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <utility>

#include "tests/data/temp_folder.h"
#include "worker/base/status.h"
#include "worker/data/mapped_file.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;

std::span<const std::byte> AsBytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(File, ReadsWhatItWrote) {
  const TempFolder folder;
  absl::StatusOr<File> out = File::Create(folder.path("x"));
  ASSERT_TRUE(out.ok()) << out.status();
  ASSERT_TRUE(out->Append(AsBytes("hello ")).ok());
  ASSERT_TRUE(out->Append(AsBytes("world")).ok());
  ASSERT_TRUE(out->SyncAndClose().ok());

  absl::StatusOr<File> in = File::OpenForReading(folder.path("x"));
  ASSERT_TRUE(in.ok()) << in.status();
  EXPECT_EQ(in->size(), 11);
  std::string text(5, ' ');
  ASSERT_TRUE(in->ReadAt(6, std::as_writable_bytes(std::span(text))).ok());
  EXPECT_EQ(text, "world");
}

TEST(File, ReadingBeyondTheEndNamesTheFile) {
  const TempFolder folder;
  const absl::StatusOr<File> file = File::OpenForReading(folder.Write("x", "abc"));
  ASSERT_TRUE(file.ok());
  std::string text(5, ' ');
  const absl::Status status = file->ReadAt(1, std::as_writable_bytes(std::span(text)));
  EXPECT_EQ(Message(status), folder.path("x") + ": truncated: ends at byte 3, the bytes up to 6 are needed");
}

TEST(File, MissingFileIsNotFound) {
  const absl::Status status = File::OpenForReading("/nowhere/x").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Message(status), "/nowhere/x: No such file or directory");
}

TEST(File, RefusesFolderAndPipe) {
  const TempFolder folder;
  EXPECT_EQ(Message(File::OpenForReading(folder.path()).status()),
            folder.path() + ": is a folder, a regular file is needed");
  ASSERT_EQ(::mkfifo(folder.path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(Message(File::OpenForReading(folder.path("pipe")).status()), HasSubstr("is not a regular file"));
}

TEST(File, RefusesLinkWhenAsked) {
  const TempFolder folder;
  std::filesystem::create_symlink(folder.Write("x", "abc"), folder.path("link"));
  EXPECT_TRUE(File::OpenForReading(folder.path("link")).ok());
  EXPECT_THAT(Message(File::OpenForReading(folder.path("link"), Links::kRefuse).status()),
              HasSubstr("/link: is a symbolic link, a regular file is needed"));
}

TEST(File, FullDiskNamesTheFile) {
  absl::StatusOr<File> file = File::Create("/dev/full");
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::Status status = file->Append(AsBytes("x"));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Message(status), "/dev/full: No space left on device");
}

TEST(File, CreateBelowAFileFails) {
  const TempFolder folder;
  const std::string path = folder.Write("x", "abc") + "/y";
  EXPECT_THAT(Message(File::Create(path).status()), HasSubstr(path + ": Not a directory"));
}

TEST(SyncFolder, NamesTheFolderThatIsMissing) {
  const TempFolder folder;
  EXPECT_TRUE(SyncFolder(folder.path()).ok());
  EXPECT_THAT(Message(SyncFolder(folder.path("none"))), HasSubstr("/none: No such file"));
}

TEST(MappedFile, ShowsTheBytes) {
  const TempFolder folder;
  absl::StatusOr<MappedFile> mapped = MappedFile::Open(folder.Write("x", "abc"), MappedFile::Access::kSequential);
  ASSERT_TRUE(mapped.ok()) << mapped.status();
  EXPECT_EQ(AsText(mapped->bytes()), "abc");
  EXPECT_EQ(mapped->path(), folder.path("x"));
}

TEST(MappedFile, EmptyFileHasNoBytes) {
  const TempFolder folder;
  const absl::StatusOr<MappedFile> mapped = MappedFile::Open(folder.Write("x", ""));
  ASSERT_TRUE(mapped.ok()) << mapped.status();
  EXPECT_TRUE(mapped->bytes().empty());
}

TEST(MappedFile, MovesItsBytes) {
  const TempFolder folder;
  absl::StatusOr<MappedFile> a = MappedFile::Open(folder.Write("a", "aaa"));
  absl::StatusOr<MappedFile> b = MappedFile::Open(folder.Write("b", "bb"));
  ASSERT_TRUE(a.ok() && b.ok());
  *b = *std::move(a);
  const MappedFile c = *std::move(b);
  EXPECT_EQ(AsText(c.bytes()), "aaa");
  EXPECT_EQ(c.path(), folder.path("a"));
}

TEST(MappedFile, NamesTheFileThatIsMissing) {
  EXPECT_EQ(Message(MappedFile::Open("/nowhere/x").status()), "/nowhere/x: No such file or directory");
}

}  // namespace
}  // namespace shardmax
