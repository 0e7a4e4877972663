#include "worker/control/wire_text.h"

#include <gtest/gtest.h>

#include <string>

namespace shardmax {
namespace {

TEST(WireText, KeepsWhatIsUtf8) {
  const std::string text = "step 1: ≤ 中文 \U0001F600\n";
  EXPECT_EQ(WireText(text, 4096), text);
}

TEST(WireText, ReplacesWhatIsNoUtf8) {
  EXPECT_EQ(WireText("a\xFFz", 100), "a?z");
  EXPECT_EQ(WireText("\x80", 100), "?");
  EXPECT_EQ(WireText("\xC0\xAF", 100), "??");            // '/' written longer than need be.
  EXPECT_EQ(WireText("\xED\xA0\x80", 100), "???");       // Half of a UTF-16 pair.
  EXPECT_EQ(WireText("\xF4\x90\x80\x80", 100), "????");  // Beyond Unicode.
  EXPECT_EQ(WireText("\xE4\xB8", 100), "??");            // Half a character.
}

TEST(WireText, CutsBetweenCharacters) {
  EXPECT_EQ(WireText("中文", 6), "中文");
  EXPECT_EQ(WireText("中文", 5), "中");
  EXPECT_EQ(WireText("中文", 2), "");
  EXPECT_EQ(WireText(std::string(5000, 'x'), 4096).size(), 4096U);
}

}  // namespace
}  // namespace shardmax
