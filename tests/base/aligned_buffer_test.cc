#include "worker/base/aligned_buffer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class MapNewFileTest : public ::testing::Test {
 protected:
  MapNewFileTest() : folder_(std::filesystem::path(::testing::TempDir()) / "shardmax-mapped") {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~MapNewFileTest() override { std::filesystem::remove_all(folder_); }

  std::string Path() const { return folder_ / "weight"; }

  const std::filesystem::path folder_;
};

TEST_F(MapNewFileTest, HoldsZerosAndThenWhatIsWrittenAndHasNoName) {
  std::ofstream(Path()) << "of a run that was killed";
  constexpr int64_t kSize = 100'001;
  auto buffer = AlignedBuffer<float>::MapNewFile(Path(), kSize);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
  EXPECT_THAT(buffer->span(), ::testing::Each(0.0F));
  for (int64_t i = 0; i < kSize; ++i) buffer->data()[i] = static_cast<float>(i);
  FetchPages(buffer->data() + 7, kSize);
  const AlignedBuffer<float> moved = *std::move(buffer);
  for (int64_t i = 0; i < kSize; ++i) ASSERT_EQ(moved.data()[i], static_cast<float>(i));
}

TEST_F(MapNewFileTest, AFullDiskIsAnErrorBeforeAnythingIsWritten) {
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit limit = {1'000'000, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const auto buffer = AlignedBuffer<float>::MapNewFile(Path(), 1'000'000);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Message(buffer.status()), Path() + ": cannot take 4000000 bytes: File too large");
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(MapNewFileTest, AMissingFolderIsNamed) {
  const auto buffer = AlignedBuffer<float>::MapNewFile(Path() + "/deep", 1);
  EXPECT_THAT(Message(buffer.status()), StartsWith(Path() + "/deep: "));
  EXPECT_THAT(Message(buffer.status()), HasSubstr("No such file or directory"));
}

}  // namespace
}  // namespace shardmax
