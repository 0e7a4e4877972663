#include "worker/data/streamed_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/data/file_size_limit.h"
#include "tests/data/temp_folder.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;

std::string SampleBytes(size_t bytes) {
  std::string content(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) content[i] = static_cast<char>((i * 2654435761U) >> 13U);
  return content;
}

TEST(StreamedFile, HoldsWhatWasAppendedInPiecesOfAnySize) {
  const TempFolder folder;
  constexpr size_t kBlock = 4 << 20;
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{4096}, kBlock - 1, kBlock, kBlock + 4097, 3 * kBlock + 5}) {
    const std::string content = SampleBytes(bytes);
    auto file = StreamedFile::Create(folder.path("f"), static_cast<int64_t>(bytes));
    ASSERT_TRUE(file.ok()) << file.status();
    const auto all = std::as_bytes(std::span(content));
    for (size_t first = 0, piece = 1; first < bytes; first += piece, piece = piece * 3 + 7) {
      ASSERT_TRUE(file->Append(all.subspan(first, std::min(piece, bytes - first))).ok());
    }
    ASSERT_TRUE(file->SyncAndClose().ok());
    EXPECT_TRUE(TempFolder::ReadAll(folder.path("f")) == content) << bytes << " bytes";
  }
}

TEST(StreamedFile, ReplacesTheFileThatIsThere) {
  const TempFolder folder;
  folder.Write("f", std::string(10'000, 'x'));
  auto file = StreamedFile::Create(folder.path("f"), 3);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Append(std::as_bytes(std::span("abc", 3))).ok());
  ASSERT_TRUE(file->SyncAndClose().ok());
  EXPECT_EQ(TempFolder::ReadAll(folder.path("f")), "abc");
}

TEST(StreamedFile, AnErrorOfTheThreadThatWritesComesWithALaterPiece) {
  const TempFolder folder;
  const std::string content = SampleBytes(24 << 20);
  // Told a size that fits, and then given more.
  const FileSizeLimit limit(6 << 20);
  auto file = StreamedFile::Create(folder.path("f"), 5 << 20);
  ASSERT_TRUE(file.ok()) << file.status();
  absl::Status status = file->Append(std::as_bytes(std::span(content)));
  if (status.ok()) status = file->SyncAndClose();
  EXPECT_EQ(Message(status), folder.path("f") + ": File too large");
}

TEST(StreamedFile, CanBeGivenUpInTheMiddle) {
  const TempFolder folder;
  const std::string content = SampleBytes(9 << 20);
  {
    auto file = StreamedFile::Create(folder.path("f"), 30 << 20);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE(file->Append(std::as_bytes(std::span(content))).ok());
    const StreamedFile moved = *std::move(file);
  }
  EXPECT_THAT(TempFolder::ReadAll(folder.path("f")), HasSubstr(content.substr(0, 1000)));
}

}  // namespace
}  // namespace shardmax
