// Aligned columns.
#pragma once

#include <string>
#include <vector>

#include "client/cli/terminal.h"

namespace shardmax {

enum class Align { kLeft, kRight };

struct Column {
  std::string title;
  Align align = Align::kLeft;
};

struct Cell {
  std::string text;  // UTF-8 without control characters.
  Colour colour = Colour::kNone;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns);

  // One cell a column; an empty one is shown as "-".
  void AddRow(std::vector<Cell> row);

  // Lines with a newline each: titles, then the rows, two blanks between columns. On a terminal the last column is
  // shortened so that no line wraps; nowhere does a line end in blanks.
  std::string Render(const Terminal& terminal, int width) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

// "name   value" lines for one thing; rows with an empty text are left out, and further lines of a text are indented.
std::string RenderFields(const Terminal& terminal, const std::vector<std::pair<std::string, Cell>>& fields);

}  // namespace shardmax
