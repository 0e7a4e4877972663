#include "worker/data/checksum.h"

#include <gtest/gtest.h>

#include <string>

namespace shardmax {
namespace {

TEST(Checksum, PrintsWhatXxhsumPrints) {
  // printf '' | xxhsum -H128; printf abc | xxhsum -H128
  EXPECT_EQ(Checksum().Text(), "xxh3_128:99aa06d3014798d86001c324468d497f");
  Checksum checksum;
  checksum.Update(std::as_bytes(std::span("abc", 3)));
  EXPECT_EQ(checksum.Text(), "xxh3_128:06b05ab6733a618578af5f94892f3950");
}

TEST(Checksum, DoesNotDependOnThePieces) {
  const std::string text(10'000, 'x');
  Checksum whole;
  whole.Update(std::as_bytes(std::span(text)));
  Checksum pieces;
  for (size_t i = 0; i < text.size(); i += 300)
    pieces.Update(std::as_bytes(std::span(text).subspan(i).first(std::min<size_t>(300, text.size() - i))));
  EXPECT_EQ(pieces.Text(), whole.Text());
}

TEST(IsChecksum, AcceptsOnlyTheExactForm) {
  const std::string digits = "99aa06d3014798d86001c324468d497f";
  EXPECT_TRUE(IsChecksum("xxh3_128:" + digits));
  EXPECT_FALSE(IsChecksum(digits));
  EXPECT_FALSE(IsChecksum("xxh3_128:" + digits + "0"));
  EXPECT_FALSE(IsChecksum("xxh3_128:" + digits.substr(1)));
  EXPECT_FALSE(IsChecksum("xxh3_128:99AA06D3014798D86001C324468D497F"));
  EXPECT_FALSE(IsChecksum("sha256_xx" + digits));
  EXPECT_FALSE(IsChecksum(""));
}

}  // namespace
}  // namespace shardmax
