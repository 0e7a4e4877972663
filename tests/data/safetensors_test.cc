#include "worker/data/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <vector>

#include "tests/data/npy_builder.h"
#include "tests/data/safetensors_builder.h"
#include "tests/data/temp_folder.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SafetensorsFileTest : public ::testing::Test {
 protected:
  absl::StatusOr<SafetensorsFile> Open(const std::string& header, const std::string& data) {
    return SafetensorsFile::Open(folder_.Write("w.safetensors", SafetensorsBytes(header, data)));
  }

  // The message without the path that it must begin with.
  std::string ErrorOfBytes(const std::string& bytes) {
    const absl::Status status = SafetensorsFile::Open(folder_.Write("w.safetensors", bytes)).status();
    if (status.ok()) return "opened";
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    const std::string start = folder_.path("w.safetensors") + ": ";
    EXPECT_EQ(Message(status).substr(0, start.size()), start);
    return Message(status).substr(start.size());
  }

  std::string ErrorOf(const std::string& header, size_t data_bytes = 24) {
    return ErrorOfBytes(SafetensorsBytes(header, std::string(data_bytes, '\0')));
  }

  const TempFolder folder_;
};

TEST_F(SafetensorsFileTest, ReadsRowsOfAMatrix) {
  const absl::StatusOr<SafetensorsFile> file =
      Open(OneTensor("F32", "[3,2]", "[0,24]") + "   ", BytesOf<float>({0, 1, 2, 3, 4, 5}));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->CheckMatrix("weight", 3, 2).ok());
  std::vector<float> rows(4);
  ASSERT_TRUE(file->ReadRows("weight", {1, 2}, {rows.data(), 2, 2}).ok());
  EXPECT_THAT(rows, ElementsAre(2, 3, 4, 5));
  EXPECT_TRUE(file->ReadRows("weight", {3, 0}, {nullptr, 0, 2}).ok());
}

TEST_F(SafetensorsFileTest, RefusesRowsThatAreNotThere) {
  const absl::StatusOr<SafetensorsFile> file = Open(OneTensor("F32", "[3,2]", "[0,24]"), std::string(24, '\0'));
  ASSERT_TRUE(file.ok()) << file.status();
  std::vector<float> rows(4);
  EXPECT_THAT(Message(file->ReadRows("weight", {2, 2}, {rows.data(), 2, 2})),
              HasSubstr("tensor \"weight\" has 3 rows, 2 from row 2 on are wanted"));
  EXPECT_THAT(Message(file->ReadRows("weight", {-1, 2}, {rows.data(), 2, 2})), HasSubstr("2 from row -1 on"));
  EXPECT_THAT(Message(file->ReadRows("weight", {INT64_MAX, 2}, {rows.data(), 2, 2})), HasSubstr("are wanted"));
  EXPECT_THAT(Message(file->ReadRows("weight", {0, 1}, {rows.data(), 1, 4})),
              HasSubstr("tensor \"weight\" is F32 [3, 2], F32 [3, 4] is needed"));
  EXPECT_THAT(Message(file->ReadRows("bias", {0, 1}, {rows.data(), 1, 2})), HasSubstr("has no tensor \"bias\""));
}

TEST_F(SafetensorsFileTest, KnowsEveryTensor) {
  const absl::StatusOr<SafetensorsFile> file =
      Open(R"({"__metadata__":{"format":"pt","a":"b"},"b":{"shape":[],"data_offsets":[4,12],"dtype":"I64"},)"
           R"("a":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]},"none":{"dtype":"F32","shape":[0,7],)"
           R"("data_offsets":[4,4]}})",
           std::string(12, '\0'));
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->tensors().size(), 3u);
  EXPECT_EQ(Describe(file->tensors().at("a")), "BF16 [1, 2]");
  EXPECT_EQ(Describe(file->tensors().at("b")), "I64 []");
  EXPECT_EQ(file->tensors().at("b").offset, 4);
  EXPECT_EQ(file->tensors().at("b").bytes, 8);
  EXPECT_THAT(Message(file->CheckMatrix("b", 1, 2)), HasSubstr("tensor \"b\" is I64 [], F32 [1, 2] is needed"));
}

TEST_F(SafetensorsFileTest, AFileWithoutTensorsIsSound) {
  EXPECT_TRUE(Open("{}", "").ok());
}

TEST_F(SafetensorsFileTest, RefusesAHeaderThatClaimsTooMuch) {
  std::string bytes(108, '\0');
  const uint64_t huge = uint64_t{1} << 60;
  std::memcpy(bytes.data(), &huge, sizeof(huge));
  EXPECT_EQ(ErrorOfBytes(bytes),
            "truncated or not a safetensors file: the header claims 1152921504606846976 bytes, the file has 100");
  EXPECT_EQ(ErrorOfBytes(std::string(8, '\xff')),
            "truncated or not a safetensors file: the header claims 18446744073709551615 bytes, the file has 0");
}

TEST_F(SafetensorsFileTest, RefusesAHeaderAboveTheLimitOfTheFormat) {
  const uint64_t length = 100'000'001;
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  folder_.Write("w.safetensors", bytes);
  std::filesystem::resize_file(folder_.path("w.safetensors"), 200'000'000);  // Sparse.
  EXPECT_THAT(Message(SafetensorsFile::Open(folder_.path("w.safetensors")).status()),
              HasSubstr("the header claims 100000001 bytes, at most 100000000 are allowed"));
}

TEST_F(SafetensorsFileTest, RefusesTooShortFiles) {
  EXPECT_EQ(ErrorOfBytes(""), "is 0 bytes long, too short for a safetensors file");
  EXPECT_EQ(ErrorOfBytes("1234567"), "is 7 bytes long, too short for a safetensors file");
}

TEST_F(SafetensorsFileTest, RefusesTruncatedData) {
  EXPECT_EQ(ErrorOf(OneTensor("F32", "[3,2]", "[0,24]"), 23),
            "truncated: tensor \"weight\" needs 24 bytes of data from byte 0 on, the file has 23");
}

TEST_F(SafetensorsFileTest, RefusesOverlapsAndGaps) {
  const std::string a = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)";
  EXPECT_EQ(ErrorOf(a + R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12),
            "tensor \"b\" begins at byte 4 of the data, before the end of the one before it, 8");
  EXPECT_EQ(ErrorOf(a + R"("b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})", 20),
            "tensor \"b\" begins at byte 12 of the data, after the end of the one before it, 8");
  EXPECT_EQ(ErrorOf(a + R"("b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})", 17),
            "has 17 bytes of data, its tensors need 16");
  EXPECT_EQ(ErrorOf(OneTensor("F32", "[2]", "[4,12]"), 12),
            "tensor \"weight\" begins at byte 4 of the data, after the end of the one before it, 0");
}

TEST_F(SafetensorsFileTest, RefusesSizesThatContradictTheShape) {
  EXPECT_EQ(ErrorOf(OneTensor("F32", "[3,2]", "[0,20]")),
            "tensor \"weight\": data_offsets [0, 20] hold 20 bytes, shape [3, 2] of F32 needs 24");
  EXPECT_EQ(ErrorOf(OneTensor("F32", "[3,2]", "[24,0]")), "tensor \"weight\": data_offsets [24, 0] is not a range");
  EXPECT_EQ(ErrorOf(OneTensor("F32", "[3,2]", "[0,24,48]")), "tensor \"weight\": data_offsets has 3 values, not 2");
  EXPECT_EQ(ErrorOf(OneTensor("F99", "[3,2]", "[0,24]")), "tensor \"weight\": has the unknown dtype \"F99\"");
}

TEST_F(SafetensorsFileTest, RefusesShapesThatOverflow) {
  EXPECT_EQ(ErrorOf(OneTensor("F32", "[4294967296,4294967296]", "[0,24]")),
            "tensor \"weight\": shape [4294967296, 4294967296] of F32 is larger than any file");
  EXPECT_EQ(ErrorOf(OneTensor("F32", "[18446744073709551615]", "[0,24]")),
            "tensor \"weight\": shape [18446744073709551615] of F32 is larger than any file");
  EXPECT_EQ(ErrorOf(OneTensor("U8", "[9223372036854775807]", "[0,9223372036854775807]")),
            "truncated: tensor \"weight\" needs 9223372036854775807 bytes of data from byte 0 on, the file has 24");
  EXPECT_EQ(ErrorOf(OneTensor("F32", "[18446744073709551616]", "[0,24]")),
            "header: \"shape\" of \"weight\" holds a number that is not a whole one below 2^64");
  std::string ones = "[1";
  for (int i = 0; i < 40; ++i) ones += ",1";
  EXPECT_EQ(ErrorOf(OneTensor("F32", ones + "]", "[0,4]")), "header: \"shape\" of \"weight\" has too many values");
}

TEST_F(SafetensorsFileTest, RefusesDuplicateKeys) {
  const std::string a = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  EXPECT_EQ(ErrorOf("{" + a + "," + a + "}"), "header has \"a\" twice");
  EXPECT_EQ(ErrorOf(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})"),
            "header has \"dtype\" of \"a\" twice");
  EXPECT_EQ(ErrorOf(R"({"__metadata__":{},"__metadata__":{}})"), "header has \"__metadata__\" twice");
}

TEST_F(SafetensorsFileTest, RefusesOtherJson) {
  EXPECT_EQ(ErrorOf(""), "header is not JSON: syntax error at its byte 1");
  EXPECT_EQ(ErrorOf("{\"a\""), "header is not JSON: syntax error at its byte 5");
  EXPECT_EQ(ErrorOf("{} x"), "header is not JSON: syntax error at its byte 4");
  EXPECT_EQ(ErrorOf("{\"\xff\":1}"), "header is not JSON: syntax error at its byte 3");
  EXPECT_EQ(ErrorOf("[]"), "header: the top level holds an array");
  EXPECT_EQ(ErrorOf("null"), "header: the top level holds null");
  EXPECT_EQ(ErrorOf("\"text\""), "header: the top level holds a string");
  EXPECT_EQ(ErrorOf(R"({"a":1})"), "header: \"a\" holds a number");
  EXPECT_EQ(ErrorOf(R"({"a":{}})"), "tensor \"a\": has no \"dtype\"");
  EXPECT_EQ(ErrorOf(R"({"a":{"dtype":"F32","shape":[1]}})"), "tensor \"a\": has no \"data_offsets\"");
  EXPECT_EQ(ErrorOf(R"({"a":{"dtype":1}})"), "header: \"dtype\" of \"a\" holds a number");
  EXPECT_EQ(ErrorOf(R"({"a":{"dtype":["F32"]}})"), "header: \"dtype\" of \"a\" holds an array");
  EXPECT_EQ(ErrorOf(R"({"a":{"shape":"x"}})"), "header: \"shape\" of \"a\" holds a string");
  EXPECT_EQ(ErrorOf(R"({"a":{"shape":[-1]}})"), "header: \"shape\" of \"a\" holds a negative number");
  EXPECT_EQ(ErrorOf(R"({"a":{"shape":[true]}})"), "header: \"shape\" of \"a\" holds a boolean");
  EXPECT_EQ(ErrorOf(R"({"a":{"shape":{}}})"), "header: \"shape\" of \"a\" holds an object");
  EXPECT_EQ(ErrorOf(R"({"a":{"stride":[1]}})"), "header: \"stride\" of \"a\" is an unknown key");
  EXPECT_EQ(ErrorOf(R"({"__metadata__":{"a":1}})"), "header: \"a\" of \"__metadata__\" holds a number");
}

TEST_F(SafetensorsFileTest, RefusesDeepNestingAtOnce) {
  EXPECT_EQ(ErrorOf(R"({"a":{"shape":)" + std::string(1'000'000, '[')), "header: \"shape\" of \"a\" holds an array");
}

TEST_F(SafetensorsFileTest, ReadingAFileThatWasCutMeanwhileIsAnError) {
  const absl::StatusOr<SafetensorsFile> file = Open(OneTensor("F32", "[3,2]", "[0,24]"), std::string(24, '\0'));
  ASSERT_TRUE(file.ok()) << file.status();
  std::filesystem::resize_file(file->path(), std::filesystem::file_size(file->path()) - 1);
  std::vector<float> rows(6);
  EXPECT_THAT(Message(file->ReadRows("weight", {0, 3}, {rows.data(), 3, 2})), HasSubstr("w.safetensors: truncated"));
}

}  // namespace
}  // namespace shardmax
