#include "worker/spec/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

namespace shardmax {
namespace {

// Bytes of the UTF-8 sequence at `i`, or 0 if it is malformed.
size_t SequenceLength(const std::string& text, size_t i) {
  auto byte = [&](size_t k) { return i + k < text.size() ? static_cast<uint8_t>(text[i + k]) : uint8_t{0}; };
  auto continues = [&](size_t k) { return (byte(k) & 0xC0) == 0x80; };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;  // A continuation byte, or an overlong form of ASCII.
  if (lead < 0xE0) return continues(1) ? 2 : 0;
  if (lead < 0xF0) {
    const bool overlong = lead == 0xE0 && byte(1) < 0xA0;
    const bool surrogate = lead == 0xED && byte(1) >= 0xA0;
    return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  const bool overlong = lead == 0xF0 && byte(1) < 0x90;
  const bool past_end = lead > 0xF4 || (lead == 0xF4 && byte(1) >= 0x90);
  return continues(1) && continues(2) && continues(3) && !overlong && !past_end ? 4 : 0;
}

}  // namespace

size_t Utf8PrefixLength(const std::string& text) {
  size_t i = 0;
  while (i < text.size()) {
    const size_t length = SequenceLength(text, i);
    if (length == 0) break;
    i += length;
  }
  return i;
}

std::string Printable(const std::string& text, size_t max_bytes) {
  std::string out;
  size_t i = 0;
  while (i < text.size()) {
    const size_t length = SequenceLength(text, i);
    if (i + std::max<size_t>(length, 1) > max_bytes) return out + "...";
    const auto byte = static_cast<uint8_t>(text[i]);
    if (length == 0 || byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
      ++i;
    } else {
      out.append(text, i, length);
      i += length;
    }
  }
  return out;
}

std::string PositionOf(const std::string& text, size_t offset) {
  const auto at = text.begin() + static_cast<std::ptrdiff_t>(std::min(offset, text.size()));
  const auto line = 1 + std::count(text.begin(), at, '\n');
  const auto line_start = std::find(std::make_reverse_iterator(at), text.rend(), '\n').base();
  return fmt::format("line {}, column {}", line, at - line_start + 1);
}

bool IsName(const std::string& name) {
  const auto is_alnum = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
  };
  const auto is_allowed = [&](char c) { return is_alnum(c) || c == '.' || c == '_' || c == '-'; };
  return !name.empty() && name.size() <= 64 && is_alnum(name[0]) && std::all_of(name.begin(), name.end(), is_allowed);
}

}  // namespace shardmax
