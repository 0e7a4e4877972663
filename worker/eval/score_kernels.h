// The element-wise work on scores, vectorised for the processor that runs it (Highway, chosen at run time).
#pragma once

#include <cstdint>

namespace shardmax {

// Copies the scores that are at least `floor` to `out`, in order, and returns how many there are. `out` has room for
// count + 16. No NaN.
int64_t CollectAtLeast(const float* scores, int64_t count, float floor, float* out);

}  // namespace shardmax
