#include "worker/checkpoint/initial_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/checkpoint/small_checkpoint.h"
#include "tests/data/npy_builder.h"
#include "tests/data/safetensors_builder.h"
#include "tests/data/temp_folder.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class InitialWeightsTest : public ::testing::Test {
 protected:
  // A file with `weight` [3, 2].
  std::string WriteFile(const std::vector<float>& values) {
    return temp_.Write("w.safetensors", SafetensorsBytes(OneTensor("F32", "[3,2]", "[0,24]"), BytesOf(values)));
  }

  std::string WriteFolder() {
    SpawnRanks(2, [&](Communicator& comm) { return WriteSample(comm, temp_.path(), 10); });
    return temp_.path("step-00000010");
  }

  const TempFolder temp_;
};

TEST_F(InitialWeightsTest, ReadsAFile) {
  absl::StatusOr<InitialWeights> weights = OpenWeights(WriteFile({1, 2, 3, 4, 5, 6}), 3, 2);
  ASSERT_TRUE(weights.ok()) << weights.status();
  std::vector<float> rows(4);
  ASSERT_TRUE(weights->Read({1, 2}, {rows.data(), 2, 2}).ok());
  EXPECT_THAT(rows, ElementsAre(3, 4, 5, 6));
}

TEST_F(InitialWeightsTest, ReadsACheckpointAcrossItsFiles) {
  absl::StatusOr<InitialWeights> weights = OpenWeights(WriteFolder(), kClasses, kDim);
  ASSERT_TRUE(weights.ok()) << weights.status();
  std::vector<float> rows(3 * kDim);
  ASSERT_TRUE(weights->Read({2, 3}, {rows.data(), 3, kDim}).ok());
  for (int64_t i = 0; i < 3 * kDim; ++i) EXPECT_EQ(rows[i], SampleValue("weight", 10, 2 + i / kDim, i % kDim));
}

TEST_F(InitialWeightsTest, SaysWhichShapeIsNeeded) {
  const std::string path = WriteFile({1, 2, 3, 4, 5, 6});
  EXPECT_EQ(Message(OpenWeights(path, 4, 2).status()),
            path + ": tensor \"weight\" is F32 [3, 2], F32 [4, 2] is needed");
  const std::string folder = WriteFolder();
  EXPECT_EQ(Message(OpenWeights(folder, kClasses, 512).status()), folder + ": weight is [7, 3], [7, 512] is needed");
  EXPECT_EQ(Message(OpenWeights(folder, 70, kDim).status()), folder + ": weight is [7, 3], [70, 3] is needed");
}

TEST_F(InitialWeightsTest, SaysWhatIsMissing) {
  EXPECT_EQ(Message(OpenWeights("/nowhere/w", 3, 2).status()), "/nowhere/w: No such file or directory");
  EXPECT_EQ(Message(OpenWeights(temp_.path(), 3, 2).status()),
            temp_.path("manifest.json") + ": No such file or directory");
  const std::string path = temp_.Write("e.safetensors", SafetensorsBytes("{}", ""));
  EXPECT_EQ(Message(OpenWeights(path, 3, 2).status()), path + ": has no tensor \"weight\", F32 [3, 2] is needed");
}

TEST_F(InitialWeightsTest, RefusesRowsWithoutADirection) {
  std::vector<float> rows(4);
  absl::StatusOr<InitialWeights> weights = OpenWeights(WriteFile({1, 2, 3, NAN, 0, 0}), 3, 2);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_TRUE(weights->Read({0, 1}, {rows.data(), 1, 2}).ok());
  EXPECT_EQ(Message(weights->Read({0, 2}, {rows.data(), 2, 2})),
            temp_.path("w.safetensors") + ": weight of class 1: column 1 is nan: every value must be finite");
  EXPECT_EQ(Message(weights->Read({2, 1}, {rows.data(), 1, 2})),
            temp_.path("w.safetensors") + ": weight of class 2: has length zero: it has no direction");
}

TEST_F(InitialWeightsTest, VerifiesTheFilesOfACheckpointThatItReads) {
  const std::string folder = WriteFolder();
  const std::string second = folder + "/classes-00000004-00000006.safetensors";
  std::string bytes = TempFolder::ReadAll(second);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  temp_.Write("step-00000010/classes-00000004-00000006.safetensors", bytes);
  absl::StatusOr<InitialWeights> weights = OpenWeights(folder, kClasses, kDim);
  ASSERT_TRUE(weights.ok()) << weights.status();
  std::vector<float> rows(size_t{kClasses} * kDim);
  EXPECT_TRUE(weights->Read({0, 4}, {rows.data(), 4, kDim}).ok());
  const absl::Status status = weights->Read({3, 2}, {rows.data(), 2, kDim});
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Message(status), HasSubstr(second + ": checksum is "));
}

}  // namespace
}  // namespace shardmax
