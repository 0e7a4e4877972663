#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>

#include "rpc/channel.h"
#include "tests/data/temp_folder.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;

class TokenTest : public ::testing::Test {
 protected:
  void SetUp() override { ::unsetenv("SHARDMAX_TOKEN"); }
  void TearDown() override { ::unsetenv("SHARDMAX_TOKEN"); }

  std::string Private(const std::string& content) const {
    std::string path = folder_.Write("token", content);
    ::chmod(path.c_str(), 0600);
    return path;
  }

  TempFolder folder_;
};

TEST_F(TokenTest, ComesFromTheFileWithoutTheSpaceAroundIt) {
  EXPECT_EQ(*ReadToken(Private(" \n smx_abc\r\n")), "smx_abc");
}

TEST_F(TokenTest, ComesFromTheEnvironmentWithoutAFile) {
  ::setenv("SHARDMAX_TOKEN", "smx_env\n", 1);
  EXPECT_EQ(*ReadToken(""), "smx_env");
  EXPECT_EQ(*ReadToken(Private("smx_file")), "smx_file");
}

TEST_F(TokenTest, IsEmptyWhenNoneIsGiven) {
  EXPECT_EQ(*ReadToken(""), "");
}

TEST_F(TokenTest, IsRefusedInAFileThatEveryUserReadsOrWrites) {
  const std::string path = Private("smx_abc");
  for (const mode_t mode : {0644, 0602}) {
    ::chmod(path.c_str(), mode);
    const auto token = ReadToken(path);
    EXPECT_TRUE(absl::IsPermissionDenied(token.status())) << token.status();
    EXPECT_THAT(Message(token.status()), HasSubstr("chmod o-rw"));
  }
  ::chmod(path.c_str(), 0640);
  EXPECT_TRUE(ReadToken(path).ok());
}

TEST_F(TokenTest, MistakesNameTheFile) {
  EXPECT_TRUE(absl::IsNotFound(ReadToken(folder_.path("absent")).status()));
  EXPECT_THAT(Message(ReadToken(folder_.path("absent")).status()),
              HasSubstr("--token_file: " + folder_.path("absent")));
  EXPECT_THAT(Message(ReadToken(Private(" \n")).status()), HasSubstr("holds no token"));
  EXPECT_THAT(Message(ReadToken(Private("two words")).status()), HasSubstr("one word"));
  EXPECT_THAT(Message(ReadToken(Private("line\nline")).status()), HasSubstr("one word"));
  EXPECT_THAT(Message(ReadToken(Private(std::string(5000, 'x'))).status()), HasSubstr("more than 4096 bytes"));
  EXPECT_FALSE(ReadToken(folder_.path()).ok());
}

TEST_F(TokenTest, TheMessageNeverShowsWhatIsInTheFile) {
  EXPECT_THAT(Message(ReadToken(Private("smx_secret words")).status()), ::testing::Not(HasSubstr("smx_secret")));
}

}  // namespace
}  // namespace shardmax
