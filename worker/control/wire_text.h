// Text of anybody, made fit for a string field of a message.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace shardmax {

// `text` as valid UTF-8 of at most `max_bytes` bytes: what is no UTF-8 becomes '?', and a cut falls between two
// characters. A message with anything else in it could never be read by its receiver.
std::string WireText(std::string_view text, size_t max_bytes);

}  // namespace shardmax
