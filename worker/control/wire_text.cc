#include "worker/control/wire_text.h"

#include "worker/spec/text.h"

namespace shardmax {

std::string WireText(const std::string& text, size_t max_bytes) {
  std::string out = text.substr(0, max_bytes);
  const bool cut = out.size() < text.size();
  size_t good = Utf8PrefixLength(out);
  while (good < out.size()) {
    // Half a character at the cut goes; elsewhere a byte is replaced, and the rest looked at again.
    constexpr size_t kLongestCharacter = 4;
    if (cut && out.size() - good < kLongestCharacter && Utf8PrefixLength(text.substr(good, kLongestCharacter)) > 0) {
      out.resize(good);
      break;
    }
    out[good] = '?';
    good += 1 + Utf8PrefixLength(out.substr(good + 1));
  }
  return out;
}

}  // namespace shardmax
