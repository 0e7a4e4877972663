#include "worker/checkpoint/folders.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/data/temp_folder.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
namespace fs = std::filesystem;

class FoldersTest : public ::testing::Test {
 protected:
  void Make(const std::string& name, const std::string& content) {
    fs::create_directory(temp_.path(name));
    temp_.Write(name + "/content", content);
  }
  std::string ContentOf(const std::string& name) { return TempFolder::ReadAll(temp_.path(name + "/content")); }
  std::vector<int32_t> Steps() {
    const absl::StatusOr<std::vector<int32_t>> steps = ListSteps(temp_.path());
    EXPECT_TRUE(steps.ok()) << steps.status();
    return *steps;
  }

  const TempFolder temp_;
};

TEST(StepOfFolderName, KnowsOnlyTheNamesThatAreWritten) {
  EXPECT_EQ(StepFolderName(1000), "step-00001000");
  EXPECT_EQ(StepOfFolderName("step-00001000"), 1000);
  EXPECT_EQ(StepOfFolderName("step-00000000"), 0);
  EXPECT_EQ(StepOfFolderName("step-2147483647"), 2147483647);
  for (const char* name : {"step-1000", "step-000001000", "step-2147483648", "step--0000001", "step-+0000001",
                           "step-0000100x", "step-", "step", "", ".tmp-step-00001000", "step-00001000.bak"}) {
    EXPECT_EQ(StepOfFolderName(name), std::nullopt) << name;
  }
}

TEST_F(FoldersTest, ListsStepsNewestFirst) {
  for (const char* name : {"step-00000020", "step-00000100", "step-00000003", ".tmp-step-00000200", "other"}) {
    Make(name, "");
  }
  EXPECT_THAT(Steps(), ElementsAre(100, 20, 3));
}

TEST_F(FoldersTest, AMissingFolderHoldsNone) {
  const absl::StatusOr<std::vector<int32_t>> steps = ListSteps(temp_.path("none"));
  ASSERT_TRUE(steps.ok()) << steps.status();
  EXPECT_THAT(*steps, IsEmpty());
}

TEST_F(FoldersTest, AFileIsNoFolder) {
  EXPECT_EQ(Message(ListSteps(temp_.Write("x", "")).status()), temp_.path("x") + ": Not a directory");
}

TEST_F(FoldersTest, PublishReplaces) {
  Make("step-00000010", "before");
  Make(".tmp-step-00000010", "after");
  ASSERT_TRUE(PublishFolder(temp_.path(), temp_.path(".tmp-step-00000010"), 10).ok());
  EXPECT_EQ(ContentOf("step-00000010"), "after");
  RemoveOldest(temp_.path(), 10, 1);
  EXPECT_FALSE(fs::exists(temp_.path(".old-step-00000010")));
}

TEST_F(FoldersTest, PublishThatFailsPutsBackWhatWasThere) {
  Make("step-00000010", "before");
  const absl::Status status = PublishFolder(temp_.path(), temp_.path(".tmp-step-00000010"), 10);
  EXPECT_EQ(Message(status), "renaming " + temp_.path(".tmp-step-00000010") + " to " + temp_.path("step-00000010") +
                                 ": No such file or directory");
  EXPECT_EQ(ContentOf("step-00000010"), "before");
}

TEST_F(FoldersTest, RestoreUndoesAReplacementThatStoppedHalfway) {
  Make(".old-step-00000010", "before");
  Make(".old-step-00000020", "replaced");
  Make("step-00000020", "after");
  Make(".old-mine", "of the user");
  ASSERT_TRUE(RestoreSetAside(temp_.path()).ok());
  EXPECT_EQ(ContentOf("step-00000010"), "before");
  EXPECT_EQ(ContentOf("step-00000020"), "after");
  RemoveOldest(temp_.path(), 20, 5);
  EXPECT_FALSE(fs::exists(temp_.path(".old-step-00000020")));
  EXPECT_TRUE(fs::exists(temp_.path(".old-mine")));
}

TEST_F(FoldersTest, RemoveOldestCountsOnlyStepsUpToTheNewest) {
  for (const char* name : {"step-00000010", "step-00000020", "step-00000030", "step-00000040"}) Make(name, "");
  RemoveOldest(temp_.path(), 30, 2);
  EXPECT_THAT(Steps(), ElementsAre(40, 30, 20));
}

}  // namespace
}  // namespace shardmax
