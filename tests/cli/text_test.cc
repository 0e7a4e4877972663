#include "client/cli/text.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>

namespace shardmax {
namespace {

TEST(TextTest, ControlCharactersCannotReachTheTerminal) {
  EXPECT_EQ(Harmless("loss\x1b[2J\x07\r\n\t\x7f"), "loss\\x1b[2J\\x07\\x0d\\x0a\\x09\\x7f");
  EXPECT_EQ(Harmless(std::string("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(Harmless("\xc2\x9b"
                     "31m"),
            "\\x9b31m");  // C1: one character that begins an escape sequence.
  EXPECT_EQ(Harmless("\xe2\x80\xae"
                     "gnp"),
            "\\u{202e}gnp");  // Right-to-left override.
  EXPECT_EQ(Harmless("\xe2\x80\xa8"), "\\u{2028}");
  EXPECT_EQ(Harmless("\xe2\x81\xa6"), "\\u{2066}");
}

TEST(TextTest, OtherTextIsLeftAsItIs) {
  EXPECT_EQ(Harmless("straße 漢字 𝄞 ‰"), "straße 漢字 𝄞 ‰");
}

TEST(TextTest, BytesThatAreNotUtf8AreShownAsNumbers) {
  EXPECT_EQ(Harmless("a\xff\xfe"
                     "b"),
            "a\\xff\\xfeb");
  EXPECT_EQ(Harmless("\xe6\xbc"), "\\xe6\\xbc");
  EXPECT_EQ(Harmless("\xc0\x9b"), "\\xc0\\x9b");  // An overlong form.
}

TEST(TextTest, LinesStayLinesWithAnIndent) {
  EXPECT_EQ(HarmlessLines("a\nb\x1b\nc", 2), "a\n  b\\x1b\n  c");
}

TEST(TextTest, ShorteningCountsCharacters) {
  EXPECT_EQ(WidthOf("漢字ab"), 4);
  EXPECT_EQ(Shortened("漢字漢字漢字", 6), "漢字漢字漢字");
  EXPECT_EQ(Shortened("漢字漢字漢字", 5), "漢字...");
  EXPECT_EQ(Shortened("abcdef", 2), "ab");
  EXPECT_EQ(Shortened("abcdef", 0), "");
}

TEST(TextTest, DurationsHaveTwoUnits) {
  EXPECT_EQ(ShortDuration(-3), "0s");
  EXPECT_EQ(ShortDuration(59.9), "59s");
  EXPECT_EQ(ShortDuration(192), "3m12s");
  EXPECT_EQ(ShortDuration(7500), "2h05m");
  EXPECT_EQ(ShortDuration(3 * 86400 + 4 * 3600), "3d04h");
}

TEST(TextTest, TimesAreRelative) {
  google::protobuf::Timestamp time;
  time.set_seconds(1000);
  EXPECT_EQ(Ago(time, true, 1192), "3m12s ago");
  EXPECT_EQ(Ago(time, true, 1000.5), "now");
  EXPECT_EQ(Ago(time, true, 900), "now");
  EXPECT_EQ(Ago(time, false, 1192), "-");
}

TEST(TextTest, LocalTimesAreThoseOfTheMachine) {
  ::setenv("TZ", "UTC", 1);
  ::tzset();
  google::protobuf::Timestamp time;
  time.set_seconds(1'000'000'000);
  EXPECT_EQ(LocalTime(time), "2001-09-09 01:46:40");
  time.set_seconds(INT64_MAX);
  EXPECT_EQ(LocalTime(time), "-");
}

TEST(TextTest, BytesHaveThreeDigits) {
  EXPECT_EQ(ByteCount(0), "0 B");
  EXPECT_EQ(ByteCount(999), "999 B");
  EXPECT_EQ(ByteCount(1500), "1.50 KB");
  EXPECT_EQ(ByteCount(20'480'000), "20.5 MB");
  EXPECT_EQ(ByteCount(999'999'999), "1.00 GB");
  EXPECT_EQ(ByteCount(INT64_MAX), "9.22 EB");
}

TEST(TextTest, LargeNumbersAreGrouped) {
  EXPECT_EQ(Grouped(0), "0");
  EXPECT_EQ(Grouped(999), "999");
  EXPECT_EQ(Grouped(1000), "1,000");
  EXPECT_EQ(Grouped(-1234567), "-1,234,567");
  EXPECT_EQ(Grouped(-123), "-123");
}

}  // namespace
}  // namespace shardmax
