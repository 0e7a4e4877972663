// Text of anybody, made fit for a string field of a message.
#pragma once

#include <cstddef>
#include <string>

namespace shardmax {

// `text` as valid UTF-8 of at most `max_bytes` bytes: bytes that are no UTF-8 become '?', and a cut falls between two
// characters. A message with anything else in it could never be read by its receiver.
std::string WireText(const std::string& text, size_t max_bytes);

}  // namespace shardmax
