// Where the labels of a batch fall into a shard.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "worker/base/shard_range.h"

namespace shardmax {

// A row of the batch whose label is in the shard: the label's place among the classes that take part (all of the shard,
// or the active ones).
struct LabelHit {
  int64_t local_class;
  int64_t row;
};

class LabelHits {
 public:
  // `active`, if given, has every label of the shard.
  void Find(std::span<const int32_t> labels, Range shard, std::optional<std::span<const int32_t>> active) {
    hits_.clear();
    hits_.reserve(labels.size());
    for (size_t b = 0; b < labels.size(); ++b) {
      if (!shard.contains(labels[b])) continue;
      int64_t place = labels[b] - shard.first;
      if (active.has_value()) place = std::lower_bound(active->begin(), active->end(), place) - active->begin();
      hits_.push_back({place, static_cast<int64_t>(b)});
    }
    std::sort(hits_.begin(), hits_.end(), [](const LabelHit& a, const LabelHit& b) {
      return a.local_class != b.local_class ? a.local_class < b.local_class : a.row < b.row;
    });
  }

  // Those of the places `local`, ascending by class, then row.
  std::span<const LabelHit> In(Range local) const {
    const auto before = [](const LabelHit& hit, int64_t local_class) { return hit.local_class < local_class; };
    const auto begin = std::lower_bound(hits_.begin(), hits_.end(), local.first, before);
    return {begin, std::lower_bound(begin, hits_.end(), local.end(), before)};
  }

 private:
  std::vector<LabelHit> hits_;
};

}  // namespace shardmax
