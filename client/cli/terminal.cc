#include "client/cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace shardmax {
namespace {

constexpr int kUsualWidth = 80;

bool ColoursWanted() {
  const char* no_color = std::getenv("NO_COLOR");
  if (no_color != nullptr && *no_color != '\0') return false;
  const char* term = std::getenv("TERM");
  return term != nullptr && std::string_view(term) != "dumb";
}

const char* CodeOf(Colour colour) {
  switch (colour) {
    case Colour::kBold:
      return "1";
    case Colour::kDim:
      return "2";
    case Colour::kRed:
      return "31";
    case Colour::kGreen:
      return "32";
    case Colour::kYellow:
      return "33";
    case Colour::kCyan:
      return "36";
    case Colour::kNone:
      break;
  }
  return "0";
}

}  // namespace

Terminal::Terminal(std::FILE* stream)
    : stream_(stream), is_terminal_(isatty(fileno(stream)) != 0), colours_(is_terminal_ && ColoursWanted()) {}

Terminal::Terminal(std::FILE* stream, bool is_terminal, bool colours)
    : stream_(stream), is_terminal_(is_terminal), colours_(colours) {}

int Terminal::width() const {
  if (!is_terminal_) return 0;
  winsize size = {};
  if (ioctl(fileno(stream_), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kUsualWidth;
  return size.ws_col;
}

std::string Terminal::Paint(const std::string& text, Colour colour) const {
  if (!colours_ || colour == Colour::kNone) return text;
  return std::string("\033[") + CodeOf(colour) + "m" + text + "\033[0m";
}

void Terminal::Print(const std::string& text) const {
  std::fwrite(text.data(), 1, text.size(), stream_);
}

Colour ColourOf(v1::JobState state) {
  switch (state) {
    case v1::RUNNING:
      return Colour::kCyan;
    case v1::SUCCEEDED:
      return Colour::kGreen;
    case v1::FAILED:
      return Colour::kRed;
    case v1::STOPPED:
      return Colour::kYellow;
    default:
      return Colour::kNone;
  }
}

}  // namespace shardmax
