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
uint64_t ThresholdOf(double chance) {
  return chance >= 1 ? std::numeric_limits<uint64_t>::max() : static_cast<uint64_t>(std::ldexp(chance, 64));
}

bool IsBelow(uint64_t key, uint64_t threshold, int64_t global_class_id) {
  return threshold == std::numeric_limits<uint64_t>::max() ||
         Mix64(key ^ static_cast<uint64_t>(global_class_id)) < threshold;
}

}  // namespace

bool IsDrawn(const StepSampling& sampling, int64_t global_class_id) {
  return IsBelow(KeyOf(sampling), ThresholdOf(sampling.rate), global_class_id);
}

void ActiveClasses::Draw(const StepSampling& sampling, double chance, Range shard) {
  const uint64_t key = KeyOf(sampling);
  const uint64_t threshold = ThresholdOf(chance);
  local_.clear();
  auto next = certain_.begin();
  for (int64_t k = 0; k < shard.count; ++k) {
    const bool is_certain = next != certain_.end() && *next == k;
    while (next != certain_.end() && *next == k) ++next;
    if (is_certain || IsBelow(key, threshold, shard.first + k)) local_.push_back(static_cast<int32_t>(k));
  }
}

void ActiveClasses::Choose(const StepSampling& sampling, Range shard, std::span<const int32_t> labels) {
  certain_.clear();
  for (const int32_t label : labels) {
    if (shard.contains(label)) certain_.push_back(static_cast<int32_t>(label - shard.first));
  }
  std::ranges::sort(certain_);
  Draw(sampling, sampling.rate, shard);
}

bool ActiveClasses::Mark(int32_t global_class_id, Range shard) {
  constexpr int32_t kBits = 64;
  uint64_t& word = marks_[static_cast<size_t>(global_class_id / kBits)];
  const uint64_t bit = uint64_t{1} << static_cast<uint32_t>(global_class_id % kBits);
  if ((word & bit) != 0) return false;
  word |= bit;
  marked_.push_back(global_class_id);
  if (shard.contains(global_class_id)) certain_.push_back(static_cast<int32_t>(global_class_id - shard.first));
  return true;
}

void ActiveClasses::ChooseNearest(const StepSampling& sampling, Range shard, int64_t num_classes,
                                  const NeighbourLists& lists) {
  marks_.resize(static_cast<size_t>((num_classes + 63) / 64));
  marked_.clear();
  certain_.clear();
  for (const int32_t label : lists.labels()) Mark(label, shard);
  const auto labels = static_cast<int64_t>(lists.labels().size());
  const double room = sampling.rate * static_cast<double>(num_classes - labels);
  int64_t others = 0;
  for (int64_t place = 0; place < lists.neighbours(); ++place) {
    for (size_t i = 0; i < lists.labels().size() && static_cast<double>(others + 1) <= room; ++i) {
      if (Mark(lists.Of(i)[static_cast<size_t>(place)], shard)) ++others;
    }
  }
  for (const int32_t id : marked_) marks_[static_cast<size_t>(id / 64)] = 0;
  std::ranges::sort(certain_);
  const auto rest = static_cast<double>(num_classes - labels - others);
  Draw(sampling, rest > 0 ? (room - static_cast<double>(others)) / rest : 0, shard);
}

}  // namespace shardmax
