#include "client/cli/table.h"

#include <gtest/gtest.h>

namespace shardmax {
namespace {

const Terminal kPlain(stdout, false, false);
const Terminal kColour(stdout, true, true);

Table Jobs() {
  Table table({{"JOB"}, {"LOSS", Align::kRight}, {"REASON"}});
  table.AddRow({{"glyphs-1"}, {"12.5"}, {"waits for a pool of 4 ranks"}});
  table.AddRow({{"é-2", Colour::kRed}, {""}, {""}});
  return table;
}

TEST(TableTest, ColumnsAreAlignedAndEmptyCellsShown) {
  EXPECT_EQ(Jobs().Render(kPlain, 0),
            "JOB       LOSS  REASON\n"
            "glyphs-1  12.5  waits for a pool of 4 ranks\n"
            "é-2          -  -\n");
}

TEST(TableTest, TheLastColumnIsShortenedToTheTerminal) {
  EXPECT_EQ(Jobs().Render(kPlain, 30),
            "JOB       LOSS  REASON\n"
            "glyphs-1  12.5  waits for a...\n"
            "é-2          -  -\n");
}

TEST(TableTest, ColoursDoNotMoveColumns) {
  const std::string text = Jobs().Render(kColour, 0);
  EXPECT_NE(text.find("\033[31mé-2     \033[0m  \033[2m   -\033[0m"), std::string::npos) << text;
}

TEST(TableTest, FieldsThatAreEmptyAreLeftOut) {
  EXPECT_EQ(RenderFields(kPlain, {{"job", {"a-1"}}, {"reason", {""}}, {"state", {"PENDING"}}}),
            "job    a-1\n"
            "state  PENDING\n");
}

}  // namespace
}  // namespace shardmax
