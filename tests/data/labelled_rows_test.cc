#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/data/npy_builder.h"
#include "tests/data/temp_folder.h"
#include "worker/base/status.h"
#include "worker/data/dataset.h"

namespace shardmax {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kClasses = 5;

class LabelledRowsTest : public ::testing::Test {
 protected:
  void Features(const std::string& descr, const std::string& shape, const std::string& data) {
    folder_.Write("x.npy", NpyBytes(NpyDict(descr, shape), data));
  }
  void Labels(const std::string& descr, const std::string& shape, const std::string& data) {
    folder_.Write("y.npy", NpyBytes(NpyDict(descr, shape), data));
  }

  absl::StatusOr<LabelledRows> Open(int64_t dim = 2) {
    return LabelledRows::Open("train.dataset", folder_.path("x.npy"), folder_.path("y.npy"), dim, kClasses);
  }

  absl::Status Read(const std::vector<int64_t>& rows) {
    absl::StatusOr<LabelledRows> data = Open();
    if (!data.ok()) return data.status();
    features_.assign(rows.size() * 2, -7.0f);
    labels_.assign(rows.size(), -7);
    return data->Read(rows, {features_.data(), static_cast<int64_t>(rows.size()), 2}, labels_);
  }

  std::string FeaturesError() const { return "train.dataset.features: " + folder_.path("x.npy") + ": "; }
  std::string LabelsError() const { return "train.dataset.labels: " + folder_.path("y.npy") + ": "; }

  const TempFolder folder_;
  std::vector<float> features_;
  std::vector<int32_t> labels_;
};

TEST_F(LabelledRowsTest, ReadsTheRowsThatAreAskedFor) {
  Features("<f4", "(3, 2)", BytesOf<float>({1, 2, 3, 4, 5, 6}));
  Labels("<i8", "(3,)", BytesOf<int64_t>({4, 0, 2}));
  ASSERT_TRUE(Read({2, 0, 2}).ok());
  EXPECT_THAT(features_, ElementsAre(5, 6, 1, 2, 5, 6));
  EXPECT_THAT(labels_, ElementsAre(2, 4, 2));
  const absl::StatusOr<LabelledRows> data = Open();
  EXPECT_EQ(data->rows(), 3);
  EXPECT_EQ(data->dim(), 2);
  EXPECT_EQ(data->label(0), 4);
}

TEST_F(LabelledRowsTest, ReadsHalfPrecisionAndInt32) {
  Features("<f2", "(2, 2)", BytesOf<uint16_t>({0x3c00, 0xc000, 0x0001, 0x0000}));
  Labels("<i4", "(2,)", BytesOf<int32_t>({1, -1}));
  ASSERT_TRUE(Read({0}).ok());
  EXPECT_THAT(features_, ElementsAre(1, -2));
  EXPECT_THAT(labels_, ElementsAre(1));
}

TEST_F(LabelledRowsTest, ReadsFilesWhoseDataIsNotAligned) {
  const std::string bytes = NpyBytes(NpyDict("<f4", "(1, 2)"), BytesOf<float>({1, 2}));
  std::string shifted = bytes.substr(0, 10) + " " + bytes.substr(10);
  ++shifted[8];
  folder_.Write("x.npy", shifted);
  Labels("<i4", "(1,)", BytesOf<int32_t>({1}));
  ASSERT_TRUE(Read({0}).ok());
  EXPECT_THAT(features_, ElementsAre(1, 2));
}

TEST_F(LabelledRowsTest, RefusesValuesThatAreNotFinite) {
  Features("<f4", "(3, 2)", BytesOf<float>({1, 2, 3, NAN, -INFINITY, 1}));
  Labels("<i4", "(3,)", BytesOf<int32_t>({0, 1, 2}));
  EXPECT_TRUE(Read({0}).ok());
  EXPECT_EQ(Message(Read({0, 1})), FeaturesError() + "row 1: column 1 is nan: every value must be finite");
  EXPECT_EQ(Message(Read({2})), FeaturesError() + "row 2: column 0 is -inf: every value must be finite");
}

TEST_F(LabelledRowsTest, RefusesInfinityOfHalfPrecision) {
  Features("<f2", "(1, 2)", BytesOf<uint16_t>({0x3c00, 0x7c00}));
  Labels("<i4", "(1,)", BytesOf<int32_t>({0}));
  EXPECT_EQ(Message(Read({0})), FeaturesError() + "row 0: column 1 is inf: every value must be finite");
}

TEST_F(LabelledRowsTest, RefusesRowsWithoutDirection) {
  Features("<f4", "(3, 2)", BytesOf<float>({0, -0.0f, 1e-42f, 1e-42f, 1e-30f, 0}));
  Labels("<i4", "(3,)", BytesOf<int32_t>({0, 1, 2}));
  EXPECT_EQ(Message(Read({0})), FeaturesError() + "row 0: has length zero: it has no direction");
  EXPECT_EQ(Message(Read({1})), FeaturesError() + "row 1: has length zero: it has no direction");
  EXPECT_TRUE(Read({2}).ok());
}

TEST_F(LabelledRowsTest, RefusesRowsLongerThanAFloat) {
  const float max = std::numeric_limits<float>::max();
  Features("<f4", "(2, 2)", BytesOf<float>({max, max, max, 0}));
  Labels("<i4", "(2,)", BytesOf<int32_t>({0, 1}));
  EXPECT_THAT(Message(Read({0})), HasSubstr("row 0: has length 4.8"));
  EXPECT_TRUE(Read({1}).ok());
}

TEST_F(LabelledRowsTest, IgnoredRowsBecomeZerosWhateverTheyHold) {
  Features("<f4", "(2, 2)", BytesOf<float>({NAN, INFINITY, 0, 0}));
  Labels("<i4", "(2,)", BytesOf<int32_t>({-1, -1}));
  ASSERT_TRUE(Read({0, 1}).ok());
  EXPECT_THAT(features_, Each(0.0f));
  EXPECT_THAT(labels_, ElementsAre(-1, -1));
}

TEST_F(LabelledRowsTest, RefusesLabelsOutOfRange) {
  Features("<f4", "(3, 2)", BytesOf<float>({1, 2, 3, 4, 5, 6}));
  Labels("<i4", "(3,)", BytesOf<int32_t>({-1, 4, 5}));
  EXPECT_EQ(Message(Open().status()), LabelsError() + "row 2: label 5 is neither -1 nor in [0, 5)");
  Labels("<i4", "(3,)", BytesOf<int32_t>({0, -2, 7}));
  EXPECT_EQ(Message(Open().status()), LabelsError() + "row 1: label -2 is neither -1 nor in [0, 5)");
  // 2^32 would be class 0 if it were cut to 32 bits.
  Labels("<i8", "(3,)", BytesOf<int64_t>({int64_t{1} << 32, 0, 0}));
  EXPECT_EQ(Message(Open().status()), LabelsError() + "row 0: label 4294967296 is neither -1 nor in [0, 5)");
}

TEST_F(LabelledRowsTest, RefusesWrongFeatures) {
  Labels("<i4", "(3,)", BytesOf<int32_t>({0, 1, 2}));
  Features("<i4", "(3, 2)", std::string(24, '\0'));
  EXPECT_EQ(Message(Open().status()), FeaturesError() + "dtype is int32, float32 or float16 is needed");
  Features("<f4", "(6,)", std::string(24, '\0'));
  EXPECT_EQ(Message(Open().status()), FeaturesError() + "has shape [6], [n, 2] is needed");
  Features("<f4", "(3, 2)", std::string(24, '\0'));
  EXPECT_EQ(Message(Open(4).status()), FeaturesError() + "has shape [3, 2], [n, 4] is needed");
  Features("<f4", "(0, 2)", "");
  EXPECT_EQ(Message(Open().status()), FeaturesError() + "has no rows");
}

TEST_F(LabelledRowsTest, RefusesWrongLabels) {
  Features("<f4", "(3, 2)", BytesOf<float>({1, 2, 3, 4, 5, 6}));
  Labels("<f4", "(3,)", std::string(12, '\0'));
  EXPECT_EQ(Message(Open().status()), LabelsError() + "dtype is float32, int32 or int64 is needed");
  Labels("<i4", "(3, 1)", std::string(12, '\0'));
  EXPECT_EQ(Message(Open().status()), LabelsError() + "has shape [3, 1], [3] is needed");
  Labels("<i4", "(2,)", std::string(8, '\0'));
  EXPECT_EQ(Message(Open().status()), LabelsError() + "has 2 rows, the features " + folder_.path("x.npy") + " have 3");
}

TEST_F(LabelledRowsTest, NamesTheFieldOfAFileThatDoesNotOpen) {
  EXPECT_EQ(Message(Open().status()), FeaturesError() + "No such file or directory");
  Features("<f4", "(3, 2)", std::string(24, '\0'));
  EXPECT_EQ(Message(Open().status()), LabelsError() + "No such file or directory");
  folder_.Write("y.npy", "rubbish");
  EXPECT_EQ(Message(Open().status()), LabelsError() + "is not an .npy file");
}

TEST_F(LabelledRowsTest, ChecksTheRowsOfARangeAndNoOthers) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Features("<f4", "(4, 2)", BytesOf<float>({1, 2, nan, 4, 5, 6, 0, 0}));
  Labels("<i8", "(4,)", BytesOf<int64_t>({4, 0, 2, 1}));
  const absl::StatusOr<LabelledRows> data = Open();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(Message(data->Check({0, 4})), FeaturesError() + "row 1: column 0 is nan: every value must be finite");
  EXPECT_EQ(Message(data->Check({2, 2})), FeaturesError() + "row 3: has length zero: it has no direction");
  EXPECT_EQ(data->Check({2, 1}), absl::OkStatus());
  EXPECT_EQ(data->Check({4, 0}), absl::OkStatus());
  Labels("<i8", "(4,)", BytesOf<int64_t>({4, -1, 2, -1}));
  EXPECT_EQ(Open()->Check({0, 4}), absl::OkStatus());
}

TEST_F(LabelledRowsTest, DigestsDifferWhereFilesDo) {
  std::vector<float> features(2000, 1);
  std::vector<int64_t> labels(1000, 1);
  const auto digest = [&] {
    Features("<f4", "(1000, 2)", BytesOf(features));
    Labels("<i8", "(1000,)", BytesOf(labels));
    return Open()->MakeDigest();
  };
  const LabelledRows::Digest first = digest();
  EXPECT_THAT(first.features, HasSubstr("1000 rows of float32, checksum xxh3_128:"));
  EXPECT_EQ(first.features_file, "train.dataset.features: " + folder_.path("x.npy"));
  EXPECT_EQ(first.labels_file, "train.dataset.labels: " + folder_.path("y.npy"));
  EXPECT_EQ(digest().features, first.features);
  EXPECT_EQ(digest().labels, first.labels);
  features[1] = 2;  // The first row is among those that are looked at.
  EXPECT_NE(digest().features, first.features);
  EXPECT_EQ(digest().labels, first.labels);
  labels[777] = 2;  // Every label is.
  EXPECT_NE(digest().labels, first.labels);
}

}  // namespace
}  // namespace shardmax
