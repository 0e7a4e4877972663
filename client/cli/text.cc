#include "client/cli/text.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>

#include "worker/spec/text.h"

namespace shardmax {
namespace {

// Bytes of the well-formed UTF-8 character that begins with `lead`.
size_t CharacterLength(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  if (byte < 0x80) return 1;
  if (byte < 0xE0) return 2;
  return byte < 0xF0 ? 3 : 4;
}

bool ContinuesCharacter(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

uint32_t CodePoint(std::string_view character) {
  const auto lead = static_cast<unsigned char>(character[0]);
  if (character.size() == 1) return lead;
  uint32_t code = lead & (0xFFU >> (character.size() + 1));
  for (const char c : character.substr(1)) code = code << 6 | (static_cast<unsigned char>(c) & 0x3FU);
  return code;
}

bool IsHarmful(uint32_t code) {
  const bool control = code < 0x20 || (code >= 0x7F && code < 0xA0);
  const bool line_break = code == 0x2028 || code == 0x2029;
  const bool direction = code == 0x061C || code == 0x200E || code == 0x200F || (code >= 0x202A && code <= 0x202E) ||
                         (code >= 0x2066 && code <= 0x2069);
  return control || line_break || direction;
}

// Appends `text`, which is UTF-8.
void AppendHarmless(std::string_view text, std::string& out) {
  while (!text.empty()) {
    const std::string_view character = text.substr(0, CharacterLength(text[0]));
    text.remove_prefix(character.size());
    const uint32_t code = CodePoint(character);
    if (!IsHarmful(code)) {
      out += character;
    } else {
      out += code < 0x100 ? fmt::format("\\x{:02x}", code) : fmt::format("\\u{{{:04x}}}", code);
    }
  }
}

}  // namespace

std::string Harmless(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t good = Utf8PrefixLength(std::string(text));
    AppendHarmless(text.substr(0, good), out);
    text.remove_prefix(good);
    if (text.empty()) break;
    out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0]));
    text.remove_prefix(1);
  }
  return out;
}

std::string HarmlessLines(std::string_view text, size_t indent) {
  std::string out;
  while (true) {
    const size_t end = text.find('\n');
    out += Harmless(text.substr(0, end));
    if (end == std::string_view::npos) return out;
    text.remove_prefix(end + 1);
    out.append("\n").append(indent, ' ');
  }
}

size_t WidthOf(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return !ContinuesCharacter(c); }));
}

std::string Shortened(const std::string& text, size_t width) {
  if (WidthOf(text) <= width) return text;
  const std::string dots = width > 3 ? "..." : "";
  size_t bytes = 0;
  for (size_t left = width - dots.size(); left > 0; --left) bytes += CharacterLength(text[bytes]);
  return text.substr(0, bytes) + dots;
}

std::string ShortDuration(double seconds) {
  const auto whole = static_cast<int64_t>(std::max(seconds, 0.0));
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
  return fmt::format("{}d{:02}h", whole / 86400, whole / 3600 % 24);
}

double SecondsOf(const google::protobuf::Timestamp& time) {
  return static_cast<double>(time.seconds()) + 1e-9 * time.nanos();
}

double NowSeconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string Ago(const google::protobuf::Timestamp& time, bool present, double now_s) {
  if (!present) return "-";
  const double age = now_s - SecondsOf(time);
  return age < 1 ? "now" : ShortDuration(age) + " ago";
}

std::string LocalTime(const google::protobuf::Timestamp& time) {
  const auto seconds = static_cast<std::time_t>(time.seconds());
  std::tm local = {};
  if (localtime_r(&seconds, &local) == nullptr) return "-";  // A year that no calendar has.
  return fmt::format("{:%Y-%m-%d %H:%M:%S}", local);
}

std::string ByteCount(int64_t bytes) {
  if (bytes < 1000) return fmt::format("{} B", bytes);
  auto value = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* next : {"KB", "MB", "GB", "TB", "PB", "EB"}) {
    if (value < 999.5) break;
    value /= 1000;
    unit = next;
  }
  return fmt::format("{:.{}f} {}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0, unit);
}

std::string Grouped(int64_t number) {
  std::string digits = std::to_string(number);
  const size_t first = digits[0] == '-' ? 1 : 0;
  for (size_t at = digits.size(); at > first + 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

}  // namespace shardmax
