// Text from a file or a stranger, made fit for an error message.
#pragma once

#include <string>
#include <string_view>

namespace shardmax {

// `text` in double quotes: bytes outside printable ASCII as \xNN, and cut after 64 bytes with "...". Never longer than
// 265 bytes, whatever the text.
std::string Quoted(std::string_view text);

}  // namespace shardmax
