// What the output goes to, and how to draw attention on it.
#pragma once

#include <cstdio>
#include <string>

#include "shardmax/v1/control.pb.h"

namespace shardmax {

enum class Colour { kNone, kBold, kDim, kRed, kGreen, kYellow, kCyan };

// A stream of this process. Copyable.
class Terminal {
 public:
  // Reads whether `stream` is a terminal, and NO_COLOR and TERM.
  explicit Terminal(std::FILE* stream);
  Terminal(std::FILE* stream, bool is_terminal, bool colours);

  std::FILE* stream() const { return stream_; }
  bool is_terminal() const { return is_terminal_; }
  // Columns; 0 when it is no terminal, and lines may be as long as they are.
  int width() const;
  // `text` in `colour`, if this stream shows colours.
  std::string Paint(const std::string& text, Colour colour) const;
  void Print(const std::string& text) const;

 private:
  std::FILE* stream_;
  bool is_terminal_;
  bool colours_;
};

Colour ColourOf(v1::JobState state);

}  // namespace shardmax
