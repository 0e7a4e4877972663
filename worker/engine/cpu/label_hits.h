// Where the labels of a batch fall into a shard.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "worker/base/shard_range.h"

namespace shardmax {

// A row of the batch whose label is in the shard.
struct LabelHit {
  int64_t local_class;
  int64_t row;
};

class LabelHits {
 public:
  void Find(std::span<const int32_t> labels, Range shard) {
    hits_.clear();
    hits_.reserve(labels.size());
    for (size_t b = 0; b < labels.size(); ++b) {
      if (shard.contains(labels[b])) hits_.push_back({labels[b] - shard.first, static_cast<int64_t>(b)});
    }
    std::sort(hits_.begin(), hits_.end(), [](const LabelHit& a, const LabelHit& b) {
      return a.local_class != b.local_class ? a.local_class < b.local_class : a.row < b.row;
    });
  }

  // Those of the classes `local` of the shard, ascending by class, then row.
  std::span<const LabelHit> In(Range local) const {
    const auto before = [](const LabelHit& hit, int64_t local_class) { return hit.local_class < local_class; };
    const auto begin = std::lower_bound(hits_.begin(), hits_.end(), local.first, before);
    return {begin, std::lower_bound(begin, hits_.end(), local.end(), before)};
  }

 private:
  std::vector<LabelHit> hits_;
};

}  // namespace shardmax
