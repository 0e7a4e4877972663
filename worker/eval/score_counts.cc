#include "worker/eval/score_counts.h"

#include <array>
#include <atomic>

#include "worker/base/status.h"

namespace shardmax {

absl::StatusOr<ScoreCounts> ScoreCounts::Make(int32_t floor) {
  ScoreCounts counts(floor);
  SHARDMAX_ASSIGN_OR_RETURN(counts.counts_, AlignedBuffer<int64_t>::Allocate(int64_t{kScoreOne} - floor + 1));
  return counts;
}

void ScoreCounts::Add(std::span<const float> scores) {
  // Counters lie far apart, each a cache miss: they are fetched together before any is touched.
  constexpr size_t kBatch = 32;
  std::array<int64_t*, kBatch> counters;
  for (size_t first = 0; first < scores.size(); first += kBatch) {
    size_t size = 0;
    for (const float score : scores.subspan(first, std::min(kBatch, scores.size() - first))) {
      const int32_t key = ScoreKey(score);
      if (key < floor_) continue;
      counters[size] = counts_.data() + (key - floor_);
      __builtin_prefetch(counters[size++], 1);
    }
    for (size_t i = 0; i < size; ++i) std::atomic_ref<int64_t>(*counters[i]).fetch_add(1, std::memory_order_relaxed);
  }
}

}  // namespace shardmax
