#include "worker/control/attempt_fence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/data/temp_folder.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;

class AttemptFenceTest : public ::testing::Test {
 protected:
  AttemptFence Attempt(int32_t number) const { return {folder_.path("job"), number}; }
  std::string File() const { return TempFolder::ReadAll(folder_.path("job/attempt")); }

  TempFolder folder_;
};

TEST_F(AttemptFenceTest, MakesTheFolderAndWritesItsNumber) {
  EXPECT_TRUE(Attempt(3).Announce().ok());
  EXPECT_EQ(File(), "3\n");
  EXPECT_TRUE(Attempt(3).Check().ok());
}

TEST_F(AttemptFenceTest, ANewerAttemptStopsTheOlder) {
  ASSERT_TRUE(Attempt(1).Announce().ok());
  ASSERT_TRUE(Attempt(2).Announce().ok());
  const absl::Status status = Attempt(1).Check();
  EXPECT_TRUE(absl::IsAborted(status));
  EXPECT_THAT(Message(status), HasSubstr("attempt 2 has taken over"));
  EXPECT_TRUE(Attempt(2).Check().ok());
}

TEST_F(AttemptFenceTest, AnOlderAttemptThatComesLateChangesNothing) {
  ASSERT_TRUE(Attempt(2).Announce().ok());
  EXPECT_TRUE(absl::IsAborted(Attempt(1).Announce()));
  EXPECT_EQ(File(), "2\n");
}

TEST_F(AttemptFenceTest, TheSameAttemptMayAnnounceItselfAgain) {
  ASSERT_TRUE(Attempt(2).Announce().ok());
  EXPECT_TRUE(Attempt(2).Announce().ok());
}

TEST_F(AttemptFenceTest, ADeletedFolderStopsTheAttempt) {
  ASSERT_TRUE(Attempt(1).Announce().ok());
  std::filesystem::remove_all(folder_.path("job"));
  EXPECT_TRUE(absl::IsAborted(Attempt(1).Check()));
}

TEST_F(AttemptFenceTest, AGarbledFileSaysNothingAndIsReplaced) {
  ASSERT_TRUE(Attempt(1).Announce().ok());
  folder_.Write("job/attempt", "12x");
  EXPECT_TRUE(Attempt(1).Check().ok());
  EXPECT_TRUE(Attempt(2).Announce().ok());
  EXPECT_EQ(File(), "2\n");
}

TEST_F(AttemptFenceTest, AFolderThatCannotBeMadeIsAnErrorThatNamesIt) {
  folder_.Write("file", "");
  EXPECT_THAT(Message(AttemptFence(folder_.path("file/job"), 1).Announce()), HasSubstr(folder_.path("file/job")));
}

}  // namespace
}  // namespace shardmax
