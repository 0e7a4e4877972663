// Text as people send it: is it UTF-8, where does it break, and how to quote it in a message.
#pragma once

#include <cstddef>
#include <string>

namespace shardmax {

// Length of the longest prefix of `text` that is well-formed UTF-8 (no overlong forms, no surrogates, at most
// U+10FFFF). text.size() if all of it is.
size_t Utf8PrefixLength(const std::string& text);

// `text` fit for one line of a message or log: control characters and bytes that are not UTF-8 become \xNN, and what is
// longer than `max_bytes` is cut and followed by "...".
std::string Printable(const std::string& text, size_t max_bytes);

// "line 3, column 7" of the byte at `offset`, both from 1; columns count bytes.
std::string PositionOf(const std::string& text, size_t offset);

// Whether `name` may name a job or a pool: 1 to 64 characters of [A-Za-z0-9._-], starting with a letter or digit.
bool IsName(const std::string& name);

}  // namespace shardmax
