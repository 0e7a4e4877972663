#include "worker/data/quote.h"

#include <fmt/format.h>

namespace shardmax {

std::string Quoted(std::string_view text) {
  constexpr size_t kMaxBytes = 64;
  std::string quoted = "\"";
  for (char c : text.substr(0, kMaxBytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte > 0x7e) {
      quoted += fmt::format("\\x{:02x}", byte);
    } else {
      if (c == '"' || c == '\\') quoted += '\\';
      quoted += c;
    }
  }
  return quoted + (text.size() > kMaxBytes ? "...\"" : "\"");
}

}  // namespace shardmax
