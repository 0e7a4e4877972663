// How success or failure of a rank travels inside a collective.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "worker/base/status.h"

namespace shardmax {

// A status on the wire. A message longer than kMessageBytes loses its middle: it begins with the field and ends with
// the row or the reason, and a long path between them matters least. Trivially copyable. All zeros is OK.
template <size_t kMessageBytes>
struct Verdict {
  int32_t code = 0;  // absl::StatusCode
  int32_t length = 0;
  std::array<char, kMessageBytes> message = {};

  static Verdict Of(const absl::Status& status) {
    Verdict verdict;
    verdict.code = static_cast<int32_t>(status.code());
    std::string text = Message(status);
    if (text.size() > kMessageBytes) text.replace(kMessageBytes / 2, text.size() - kMessageBytes + 3, "...");
    verdict.length = static_cast<int32_t>(text.size());
    std::copy_n(text.begin(), verdict.length, verdict.message.begin());
    return verdict;
  }

  // OK, or the error with "rank R: " before its message.
  absl::Status From(int rank) const {
    if (code == 0) return absl::OkStatus();
    return Error(static_cast<absl::StatusCode>(code), "rank {}: {}", rank,
                 std::string(message.data(), static_cast<size_t>(length)));
  }
};

// A small one: every step carries two verdicts.
using StepVerdict = Verdict<248>;

}  // namespace shardmax
