// Damage to bytes, for tests of hostile input.
#pragma once

#include <algorithm>
#include <random>
#include <string>

namespace shardmax {

// `bytes` with 1 to 4 random changes within the first `range` bytes: a bit, a byte, a run that is removed, doubled or
// taken from elsewhere, a cut, or a character that means something in JSON and Python.
inline std::string Mutate(std::string bytes, size_t range, std::mt19937& random) {
  constexpr std::string_view kTokens = "{}[](),:\"'\\-0123456789eE.L \0\xff";
  const auto below = [&](size_t n) { return n == 0 ? 0 : random() % n; };
  for (size_t change = 1 + below(4); change > 0; --change) {
    const size_t end = std::min(range, bytes.size());
    const size_t at = below(end);
    const size_t run = std::min(1 + below(12), bytes.size() - at);
    switch (below(7)) {
      case 0:
        if (at < end) bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        break;
      case 1:
        if (at < end) bytes[at] = static_cast<char>(below(256));
        break;
      case 2:
        bytes.erase(at, run);
        break;
      case 3:
        bytes.insert(at, bytes.substr(at, run));
        break;
      case 4:
        bytes.insert(at, bytes.substr(below(end), run));
        break;
      case 5:
        if (at < end) bytes[at] = kTokens[below(kTokens.size())];
        break;
      default:
        if (below(8) == 0) bytes.resize(at);
        break;
    }
  }
  return bytes;
}

}  // namespace shardmax
