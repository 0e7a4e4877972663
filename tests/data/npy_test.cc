#include "worker/data/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "tests/data/npy_builder.h"
#include "tests/data/temp_folder.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;

const std::vector<float> kSix = {0, 1, 2, 3, 4, 5};

class NpyFileTest : public ::testing::Test {
 protected:
  absl::StatusOr<NpyFile> Open(const std::string& bytes) { return NpyFile::Open(folder_.Write("x.npy", bytes)); }

  // The message without the path that it must begin with.
  std::string ErrorOf(const std::string& bytes) {
    const absl::StatusOr<NpyFile> file = Open(bytes);
    if (file.ok()) return "opened";
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
    const std::string start = folder_.path("x.npy") + ": ";
    EXPECT_EQ(Message(file.status()).substr(0, start.size()), start);
    return Message(file.status()).substr(start.size());
  }

  std::string ErrorOfDict(const std::string& dict) { return ErrorOf(NpyBytes(dict, BytesOf(kSix))); }

  const TempFolder folder_;
};

TEST_F(NpyFileTest, OpensAMatrix) {
  const absl::StatusOr<NpyFile> file = Open(NpyBytes(NpyDict("<f4", "(2, 3)"), BytesOf(kSix)));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->dtype(), NpyType::kFloat32);
  EXPECT_EQ(file->ndim(), 2);
  EXPECT_EQ(file->rows(), 2);
  EXPECT_EQ(file->cols(), 3);
  float value = 0;
  std::memcpy(&value, file->row(1), sizeof(value));
  EXPECT_EQ(value, 3);
}

TEST_F(NpyFileTest, OpensAVectorOfEveryVersionAndType) {
  struct Case {
    const char* descr;
    NpyType dtype;
    size_t bytes;
  };
  for (const Case& c : {Case{"<f4", NpyType::kFloat32, 4}, Case{"<f2", NpyType::kFloat16, 2},
                        Case{"<i4", NpyType::kInt32, 4}, Case{"<i8", NpyType::kInt64, 8}}) {
    for (int major : {1, 2, 3}) {
      const absl::StatusOr<NpyFile> file =
          Open(NpyBytes(NpyDict(c.descr, "(5,)"), std::string(5 * c.bytes, '\0'), major));
      ASSERT_TRUE(file.ok()) << c.descr << " version " << major << ": " << file.status();
      EXPECT_EQ(file->dtype(), c.dtype);
      EXPECT_EQ(file->ndim(), 1);
      EXPECT_EQ(file->rows(), 5);
      EXPECT_EQ(file->cols(), 1);
    }
  }
}

TEST_F(NpyFileTest, AcceptsAnyOrderOfKeysAndWhiteSpace) {
  for (const char* dict : {"{'shape': (2, 3), 'descr': '<f4', 'fortran_order': False}",
                           "  {\t\"descr\" :\"<f4\",'fortran_order':False\n,'shape':( 2,3,) , } ",
                           "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }"}) {
    EXPECT_TRUE(Open(NpyBytes(dict, BytesOf(kSix))).ok()) << dict << ": " << ErrorOfDict(dict);
  }
}

TEST_F(NpyFileTest, AcceptsAnArrayWithoutRows) {
  const absl::StatusOr<NpyFile> file = Open(NpyBytes(NpyDict("<f4", "(0, 3)"), ""));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->rows(), 0);
}

TEST_F(NpyFileTest, RefusesFortranOrder) {
  EXPECT_EQ(ErrorOfDict(NpyDict("<f4", "(2, 3)", "True")),
            "is in Fortran order: save it in C order (numpy.ascontiguousarray)");
}

TEST_F(NpyFileTest, RefusesBigEndian) {
  EXPECT_EQ(ErrorOfDict(NpyDict(">f4", "(2, 3)")),
            "dtype \">f4\" is big-endian: save it as little-endian float32, float16, int32 or int64");
}

TEST_F(NpyFileTest, RefusesOtherDtypes) {
  for (const char* descr : {"<f8", "|u1", "<u4", "|O", "<U3", "f4", "=f4", ""}) {
    EXPECT_EQ(ErrorOfDict(NpyDict(descr, "(2, 3)")),
              "dtype \"" + std::string(descr) +
                  "\" is not supported: allowed are float32 (<f4), float16 (<f2), int32 (<i4) and int64 (<i8)");
  }
  EXPECT_THAT(ErrorOfDict("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }"),
              HasSubstr("expected a string at \"[('a'"));
}

TEST_F(NpyFileTest, RefusesOtherNumbersOfDimensions) {
  EXPECT_EQ(ErrorOfDict(NpyDict("<f4", "()")), "has 0 dimensions: allowed are 1 and 2");
  EXPECT_EQ(ErrorOfDict(NpyDict("<f4", "(1, 2, 3)")), "has 3 dimensions: allowed are 1 and 2");
}

TEST_F(NpyFileTest, RefusesShapesThatOverflow) {
  EXPECT_EQ(ErrorOfDict(NpyDict("<f4", "(4294967296, 4294967296)")),
            "shape [4294967296, 4294967296] of float32 is larger than any file");
  EXPECT_EQ(ErrorOfDict(NpyDict("<f4", "(4611686018427387904, 1)")),
            "shape [4611686018427387904, 1] of float32 is larger than any file");
  EXPECT_EQ(ErrorOfDict(NpyDict("<f4", "(9223372036854775807,)")),
            "shape [9223372036854775807, 1] of float32 is larger than any file");
  EXPECT_EQ(ErrorOfDict(NpyDict("<f4", "(9223372036854775808,)")), "a dimension of 'shape' is larger than 2^63 - 1");
  EXPECT_EQ(ErrorOfDict(NpyDict("<f4", "(" + std::string(60'000, '9') + ",)")),
            "a dimension of 'shape' is larger than 2^63 - 1");
}

TEST_F(NpyFileTest, RefusesTruncatedData) {
  EXPECT_EQ(ErrorOfDict(NpyDict("<f4", "(2, 4)")), "truncated: needs 32 bytes of data, has 24");
  EXPECT_EQ(ErrorOf(NpyBytes(NpyDict("<f4", "(2, 3)"), BytesOf(kSix).substr(1))),
            "truncated: needs 24 bytes of data, has 23");
}

TEST_F(NpyFileTest, RefusesBytesAfterTheData) {
  EXPECT_EQ(ErrorOfDict(NpyDict("<f4", "(1, 3)")), "has 12 bytes after the 12 bytes of data that its shape says");
}

TEST_F(NpyFileTest, RefusesHeaderLongerThanTheFile) {
  EXPECT_EQ(ErrorOf(std::string("\x93NUMPY\x01\x00\xff\xff{}", 12)),
            "truncated: the header claims 65535 bytes, the file has 2 after its length");
  EXPECT_EQ(ErrorOf(std::string("\x93NUMPY\x02\x00\xff\xff\xff\xff{}", 14)),
            "truncated: the header claims 4294967295 bytes, the file has 2 after its length");
  EXPECT_EQ(ErrorOf(std::string("\x93NUMPY\x02\x00\x01\x00", 10)), "truncated: ends within the header");
}

TEST_F(NpyFileTest, RefusesOtherFiles) {
  EXPECT_EQ(ErrorOf(""), "is not an .npy file");
  EXPECT_EQ(ErrorOf("\x93NUMPY"), "is not an .npy file");
  EXPECT_EQ(ErrorOf("PK\x03\x04 this is an npz"), "is not an .npy file");
  EXPECT_EQ(ErrorOf(NpyBytes(NpyDict("<f4", "(2, 3)"), "", 4)), "is .npy version 4.0: allowed are 1.0, 2.0 and 3.0");
}

TEST_F(NpyFileTest, RefusesOtherHeaders) {
  const std::string rest = "'fortran_order': False, 'shape': (2, 3), }";
  EXPECT_EQ(ErrorOfDict("{" + rest), "header has no key 'descr'");
  EXPECT_EQ(ErrorOfDict("{'descr': '<f4', 'shape': (2, 3), }"), "header has no key 'fortran_order'");
  EXPECT_EQ(ErrorOfDict("{'descr': '<f4', 'fortran_order': False}"), "header has no key 'shape'");
  EXPECT_EQ(ErrorOfDict("{'descr': '<f4', 'descr': '<f4', " + rest), "header has the key \"descr\" twice");
  EXPECT_EQ(ErrorOfDict("{'descr': '<f4', 'extra': 1, " + rest), "header has the unknown key \"extra\"");
  EXPECT_THAT(ErrorOfDict("['descr']"),
              HasSubstr("header is not the dict that numpy writes: expected { at \"['descr']"));
  EXPECT_THAT(ErrorOfDict("{'descr' '<f4', " + rest), HasSubstr("expected : at"));
  EXPECT_THAT(ErrorOfDict("{'descr': '<f4' " + rest), HasSubstr("expected , or } at"));
  EXPECT_THAT(ErrorOfDict("{'descr': '<f4', " + rest + " x"), HasSubstr("expected the end of the header at \"x"));
  EXPECT_THAT(ErrorOfDict("{'descr': '<f4"), HasSubstr("expected a string that ends at"));
  EXPECT_THAT(ErrorOfDict(NpyDict("<f4", "(2, 3)", "0")), HasSubstr("expected True or False at"));
  EXPECT_THAT(ErrorOfDict(NpyDict("<f4", "[2, 3]")), HasSubstr("expected ( at"));
  EXPECT_THAT(ErrorOfDict(NpyDict("<f4", "(2 3)")), HasSubstr("expected , or ) at"));
  EXPECT_THAT(ErrorOfDict(NpyDict("<f4", "(-2, 3)")), HasSubstr("expected a dimension, 0 or more at"));
  EXPECT_THAT(ErrorOfDict(NpyDict("<f4", "(,)")), HasSubstr("expected a dimension, 0 or more at"));
  EXPECT_THAT(ErrorOfDict(NpyDict("<f4", "(6)")), HasSubstr("'shape' is not a tuple"));
}

TEST_F(NpyFileTest, MissingFileKeepsItsErrorCode) {
  const absl::Status status = NpyFile::Open("/nowhere/x.npy").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Message(status), "/nowhere/x.npy: No such file or directory");
}

}  // namespace
}  // namespace shardmax
