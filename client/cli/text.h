// Text for people: what a server or a file says, made harmless for a terminal, and numbers and times in short.
#pragma once

#include <google/protobuf/timestamp.pb.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace shardmax {

// `text` for a terminal: control characters (also C1 and those that change the direction of writing) and bytes that are
// not UTF-8 become \xNN or \u{NNNN}, so that no text of a stranger can move the cursor or hide what is printed.
std::string Harmless(std::string_view text);

// As Harmless(), but newlines stay, and every line after the first is indented by `indent` blanks.
std::string HarmlessLines(std::string_view text, size_t indent);

// Characters, for columns. Requires UTF-8.
size_t WidthOf(std::string_view text);

// The first `width` characters; what was longer ends in "...". Requires UTF-8.
std::string Shortened(const std::string& text, size_t width);

// "12s", "3m12s", "2h05m", "3d04h"; "0s" for what is negative.
std::string ShortDuration(double seconds);

// "3m12s ago", "now" below a second or in the future; "-" for a time that is absent.
std::string Ago(const google::protobuf::Timestamp& time, bool present, double now_s);

// Seconds since 1970.
double SecondsOf(const google::protobuf::Timestamp& time);
double NowSeconds();

// "2026-11-24 18:49:28" in the time zone of the machine.
std::string LocalTime(const google::protobuf::Timestamp& time);

// "512 B", "1.5 KB", "4.10 GB": powers of 1000.
std::string ByteCount(int64_t bytes);

// "1,234,567".
std::string Grouped(int64_t number);

}  // namespace shardmax
