// Finds the few high scores among many, vectorised for the processor that runs it (Highway, chosen at run time).
#pragma once

#include <cstdint>

namespace shardmax {

// Writes the places of the scores that are at least `floor` to `places`, ascending, and returns how many there are.
// `places` has room for count + kScoreSearchRoom. No NaN.
int64_t FindAtLeast(const float* scores, int64_t count, float floor, int32_t* places);

// What the search may write beyond the last place.
inline constexpr int64_t kScoreSearchRoom = 16;

}  // namespace shardmax
