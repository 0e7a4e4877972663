// Takes the few high scores out of many.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace shardmax {

// Keeps its memory from one call to the next. One thread uses one object.
class HighScores {
 public:
  // The scores that are at least `floor`, in order. Valid until the next call. No NaN.
  std::span<const float> AtLeast(float floor, std::span<const float> scores);

 private:
  std::vector<int32_t> places_;
  std::vector<float> found_;
};

}  // namespace shardmax
