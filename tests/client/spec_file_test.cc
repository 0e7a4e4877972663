#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "shardmax/client.h"
#include "tests/data/temp_folder.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;

constexpr char kJob[] = R"(
name: "glyphs"
train { num_classes: 10 dim: 4 batch_size: 8 steps: 3 dataset { features: "x.npy" labels: "y.npy" } })";

TEST(SpecFileTest, ReadsTextprotoAndJson) {
  const TempFolder folder;
  EXPECT_EQ(LoadJobSpec(folder.Write("a.textproto", kJob))->train().num_classes(), 10);
  const auto json = LoadJobSpec(
      folder.Write("a.json", R"({"name": "glyphs", "train": {"num_classes": 10, "dim": 4, "batch_size": 8, "steps": 3,
                    "dataset": {"features": "x.npy", "labels": "y.npy"}}})"));
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(json->train().dim(), 4);
}

TEST(SpecFileTest, NamesTheFileAndEveryMistake) {
  const TempFolder folder;
  const std::string path = folder.Write("a.textproto", "name: \"a b\" train { dim: 0 }");
  const auto spec = LoadJobSpec(path);
  EXPECT_TRUE(absl::IsInvalidArgument(spec.status()));
  EXPECT_THAT(Message(spec.status()), HasSubstr(path));
  EXPECT_THAT(Message(spec.status()), HasSubstr("\nname is"));
  EXPECT_THAT(Message(spec.status()), HasSubstr("\ntrain.dim is 0"));
  EXPECT_THAT(Message(spec.status()), HasSubstr("\ntrain.num_classes"));
}

TEST(SpecFileTest, FilesThatCannotBeReadAreNamed) {
  const TempFolder folder;
  EXPECT_TRUE(absl::IsNotFound(LoadJobSpec(folder.path("absent")).status()));
  EXPECT_THAT(Message(LoadJobSpec(folder.path()).status()), HasSubstr(folder.path()));
  EXPECT_TRUE(absl::IsInvalidArgument(LoadJobSpec(folder.Write("long", std::string(2 << 20, ' '))).status()));
}

}  // namespace
}  // namespace shardmax
