#include "worker/eval/high_scores.h"

#include "worker/engine/cpu/score_search.h"

namespace shardmax {

std::span<const float> HighScores::AtLeast(float floor, std::span<const float> scores) {
  if (found_.size() < scores.size()) {
    found_.resize(scores.size());
    places_.resize(scores.size() + kScoreSearchRoom);
  }
  const auto count =
      static_cast<size_t>(FindAtLeast(scores.data(), static_cast<int64_t>(scores.size()), floor, places_.data()));
  for (size_t i = 0; i < count; ++i) found_[i] = scores[static_cast<size_t>(places_[i])];
  return {found_.data(), count};
}

}  // namespace shardmax
