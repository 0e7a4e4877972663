// Finds the few high scores among many, vectorised for the processor that runs it (Highway, chosen at run time).
#pragma once

#include <cstdint>
#include <span>

namespace shardmax {

// Writes the places of the scores that are at least `floor` to `places`, ascending, and returns how many there are.
// `places` has room for count + kScoreSearchRoom. No NaN.
int64_t FindAtLeast(const float* scores, int64_t count, float floor, int32_t* places);

// The same for scores that are at least `floor` or that of their place, floors[i]. No NaN.
int64_t FindAtLeastEither(const float* scores, int64_t count, float floor, const float* floors, int32_t* places);

// dots[i] = x · row places[i] of `rows` [.., x.size()], in float32. Added up in one order whatever the places are, and
// the same for x and a row exchanged.
void DotRows(std::span<const float> x, const float* rows, std::span<const int32_t> places, float* dots);

// The place of the lowest of `count` scores, at least one; of equal ones that of the highest id. No NaN.
int32_t PlaceOfWorst(const float* scores, const int32_t* ids, int64_t count);

// What a search may write beyond the last place.
inline constexpr int64_t kScoreSearchRoom = 16;

}  // namespace shardmax
