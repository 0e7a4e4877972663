#include "worker/spec/text.h"

#include <gtest/gtest.h>

namespace shardmax {
namespace {

TEST(Utf8PrefixLength, TakesEveryWellFormedLength) {
  for (const std::string text : {"", "a", "\u00e9", "\u4e2d", "\U0001F600", "a\u4e2d\U0010FFFFz", "\uD7FF\uE000"}) {
    EXPECT_EQ(Utf8PrefixLength(text), text.size()) << text;
  }
}

TEST(Utf8PrefixLength, StopsAtTheFirstMalformedSequence) {
  const std::string malformed[] = {
      "\x80",              // A continuation byte alone.
      "\xC0\x80",          // Overlong NUL.
      "\xC1\xBF",          // Overlong ASCII.
      "\xC3",              // Cut.
      "\xC3(",             // Not continued.
      "\xE0\x9F\xBF",      // Overlong.
      "\xE4\xB8",          // Cut.
      "\xED\xA0\x80",      // A surrogate.
      "\xF0\x8F\xBF\xBF",  // Overlong.
      "\xF0\x9F\x98",      // Cut.
      "\xF4\x90\x80\x80",  // Past U+10FFFF.
      "\xF5\x80\x80\x80",
      "\xFF",
  };
  for (const std::string& bytes : malformed) {
    EXPECT_EQ(Utf8PrefixLength("ab" + bytes), 2u) << testing::PrintToString(bytes);
    EXPECT_EQ(Utf8PrefixLength("ab" + bytes + "\u4e2d"), 2u) << testing::PrintToString(bytes);
  }
}

TEST(Printable, EscapesWhatWouldSpoilALine) {
  EXPECT_EQ(Printable(std::string("a\n\0\x7F\xFF\u4e2d'\"", 9), 100), "a\\x0a\\x00\\x7f\\xff\u4e2d'");
}

TEST(Printable, CutsBetweenCharacters) {
  EXPECT_EQ(Printable("abcd", 4), "abcd");
  EXPECT_EQ(Printable("abcde", 4), "abcd...");
  EXPECT_EQ(Printable("abc\u4e2d", 4), "abc...");
}

TEST(PositionOf, CountsLinesAndColumnsFromOne) {
  EXPECT_EQ(PositionOf("ab\ncd", 0), "line 1, column 1");
  EXPECT_EQ(PositionOf("ab\ncd", 2), "line 1, column 3");
  EXPECT_EQ(PositionOf("ab\ncd", 3), "line 2, column 1");
  EXPECT_EQ(PositionOf("ab\ncd", 99), "line 2, column 3");
}

}  // namespace
}  // namespace shardmax
