// Curves in panels, drawn with cairo.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/plot/curve.h"

namespace shardmax {

struct Rgb {
  double red, green, blue;
};

struct Panel {
  enum class Scale { kLinear, kLog, kPercent };

  std::string title;
  Scale scale = Scale::kLinear;
  Rgb colour = {};
  Curve curve;             // x ascending.
  bool smooth = false;     // The curve faintly, its running mean over it.
  bool markers = false;    // A dot on each point.
  std::string last_label;  // Beside the last point; may be empty.
  std::string empty_note;  // Instead of a curve without finite points.
};

struct Picture {
  std::string title;
  std::string subtitle;
  double last_x = 0;         // All panels share the x axis, [0, last_x], named "step".
  Panel top;                 // Across the whole width.
  std::vector<Panel> below;  // In two columns, row by row.
};

// The picture as the bytes of a PNG file. All text is UTF-8.
absl::StatusOr<std::string> DrawPng(const Picture& picture);

}  // namespace shardmax
