#include "client/cli/table.h"

#include <algorithm>
#include <utility>

#include "client/cli/text.h"

namespace shardmax {
namespace {

constexpr size_t kGap = 2;
constexpr size_t kMinLastWidth = 12;

std::string Padded(const std::string& text, size_t width, Align align, bool last) {
  const size_t blanks = width > WidthOf(text) ? width - WidthOf(text) : 0;
  if (align == Align::kRight) return std::string(blanks, ' ') + text;
  return last ? text : text + std::string(blanks, ' ');
}

}  // namespace

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::AddRow(std::vector<Cell> row) {
  for (Cell& cell : row) {
    if (cell.text.empty()) cell = {"-", Colour::kDim};
  }
  rows_.push_back(std::move(row));
}

std::string Table::Render(const Terminal& terminal, int width) const {
  std::vector<size_t> widths;
  size_t before_last = 0;
  for (size_t i = 0; i < columns_.size(); ++i) {
    size_t widest = WidthOf(columns_[i].title);
    for (const auto& row : rows_) widest = std::max(widest, WidthOf(row[i].text));
    if (i > 0) before_last += widths.back() + kGap;
    widths.push_back(widest);
  }
  if (width > 0) {
    const auto room = static_cast<size_t>(width);
    widths.back() = std::min(widths.back(), room > before_last + kMinLastWidth ? room - before_last : kMinLastWidth);
  }
  std::string out;
  const auto add_line = [&](const auto& cell_of) {
    for (size_t i = 0; i < columns_.size(); ++i) {
      const bool last = i + 1 == columns_.size();
      const Cell cell = cell_of(i);
      const std::string text = last ? Shortened(cell.text, widths[i]) : cell.text;
      const std::string padded = Padded(text, widths[i], columns_[i].align, last);
      out += terminal.Paint(padded, cell.colour) + (last ? "\n" : std::string(kGap, ' '));
    }
  };
  add_line([&](size_t i) { return Cell{columns_[i].title, Colour::kBold}; });
  for (const auto& row : rows_) add_line([&](size_t i) { return row[i]; });
  return out;
}

std::string RenderFields(const Terminal& terminal, const std::vector<std::pair<std::string, Cell>>& fields) {
  size_t widest = 0;
  for (const auto& [name, cell] : fields) widest = std::max(widest, cell.text.empty() ? 0 : WidthOf(name));
  std::string out;
  for (const auto& [name, cell] : fields) {
    if (cell.text.empty()) continue;
    out += terminal.Paint(name, Colour::kDim) + std::string(widest + kGap - WidthOf(name), ' ');
    out += terminal.Paint(cell.text, cell.colour) + "\n";
  }
  return out;
}

}  // namespace shardmax
