// Exact counts of scores from a floor on, in memory that does not depend on how many are counted.
//
// A score is counted as the nearest multiple of 2^-23, the distance of float32 numbers at 1: its key is that multiple.
// Products of float32 rows are not known better than that.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/base/aligned_buffer.h"

namespace shardmax {

inline constexpr int32_t kScoreOne = 1 << 23;  // The key of 1; that of -1 is its negative.

// Rounding may carry a cosine beyond 1.
inline int32_t ScoreKey(float score) {
  return static_cast<int32_t>(std::lrint(std::clamp(score, -1.0F, 1.0F) * static_cast<float>(kScoreOne)));
}
inline double ScoreOfKey(int32_t key) {
  return static_cast<double>(key) / kScoreOne;
}

// How often each key occurred, from `floor` on. Any number of threads add at a time.
class ScoreCounts {
 public:
  // 8 bytes for each key from `floor` to kScoreOne: 64 MiB for 0 to 1, 128 MiB for all. ResourceExhausted: no memory.
  static absl::StatusOr<ScoreCounts> Make(int32_t floor);

  int32_t floor() const { return floor_; }
  // A float32 at or below every score of a key from floor() on.
  float lowest_score() const { return static_cast<float>(ScoreOfKey(floor_ - 1)); }

  // Counts the scores whose key is floor() or more.
  void Add(std::span<const float> scores);

  int64_t at(int32_t key) const { return counts_.data()[key - floor_]; }

 private:
  explicit ScoreCounts(int32_t floor) : floor_(floor) {}

  int32_t floor_;
  AlignedBuffer<int64_t> counts_;  // [kScoreOne - floor + 1]
};

}  // namespace shardmax
