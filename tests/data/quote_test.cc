#include "worker/data/quote.h"

#include <gtest/gtest.h>

namespace shardmax {
namespace {

TEST(Quoted, KeepsPrintableText) {
  EXPECT_EQ(Quoted("weight"), "\"weight\"");
}

TEST(Quoted, EscapesWhatCouldConfuseATerminal) {
  EXPECT_EQ(Quoted(std::string_view("a\"\\\n\0\x1b\xff", 7)), "\"a\\\"\\\\\\x0a\\x00\\x1b\\xff\"");
}

TEST(Quoted, CutsLongText) {
  EXPECT_EQ(Quoted(std::string(64, 'a')), '"' + std::string(64, 'a') + '"');
  EXPECT_EQ(Quoted(std::string(65, 'a')), '"' + std::string(64, 'a') + "...\"");
}

}  // namespace
}  // namespace shardmax
