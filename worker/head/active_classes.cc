#include "worker/head/active_classes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "worker/optim/state_row.h"

namespace shardmax {
namespace {

// Of the draws of a step; other numbers than those that round its state.
uint64_t KeyOf(const StepSampling& sampling) {
  return Mix64(StepNoise(sampling.seed, sampling.step));
}

// A class is drawn if its 64 bits are below this.
uint64_t ThresholdOf(double rate) {
  return rate >= 1 ? std::numeric_limits<uint64_t>::max() : static_cast<uint64_t>(std::ldexp(rate, 64));
}

bool IsBelow(uint64_t key, uint64_t threshold, int64_t global_class_id) {
  return threshold == std::numeric_limits<uint64_t>::max() ||
         Mix64(key ^ static_cast<uint64_t>(global_class_id)) < threshold;
}

}  // namespace

bool IsDrawn(const StepSampling& sampling, int64_t global_class_id) {
  return IsBelow(KeyOf(sampling), ThresholdOf(sampling.rate), global_class_id);
}

void ActiveClasses::Choose(const StepSampling& sampling, Range shard, std::span<const int32_t> labels) {
  label_classes_.clear();
  for (const int32_t label : labels) {
    if (shard.contains(label)) label_classes_.push_back(static_cast<int32_t>(label - shard.first));
  }
  std::sort(label_classes_.begin(), label_classes_.end());
  const uint64_t key = KeyOf(sampling);
  const uint64_t threshold = ThresholdOf(sampling.rate);
  local_.clear();
  auto next_label = label_classes_.begin();
  for (int64_t k = 0; k < shard.count; ++k) {
    const bool is_label = next_label != label_classes_.end() && *next_label == k;
    while (next_label != label_classes_.end() && *next_label == k) ++next_label;
    if (is_label || IsBelow(key, threshold, shard.first + k)) local_.push_back(static_cast<int32_t>(k));
  }
}

}  // namespace shardmax
