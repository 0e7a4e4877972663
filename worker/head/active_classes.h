// Which classes of a shard take part in a step of a sampled head.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/base/shard_range.h"
#include "worker/optim/skipped_steps.h"

namespace shardmax {

// How the classes of a step are drawn, and what those that were left out before have missed.
struct StepSampling {
  double rate = 1;  // In (0, 1]: the chance of each class. Those of the batch's labels always take part.
  uint32_t seed = 0;
  int64_t step = 0;                 // From 0.
  SkippedSteps* skipped = nullptr;  // Of the job; moved to `step` by the head.
};

// The labels of the global batch and random classes. Whether a class is drawn is a function of seed, step and its
// global id, so that the union over ranks does not depend on their number.
class ActiveClasses {
 public:
  void Choose(const StepSampling& sampling, Range shard, std::span<const int32_t> labels);

  // Ascending ids in the shard, from 0.
  std::span<const int32_t> local() const { return local_; }

 private:
  std::vector<int32_t> label_classes_;
  std::vector<int32_t> local_;
};

// Whether `global_class_id` is drawn, label or not.
bool IsDrawn(const StepSampling& sampling, int64_t global_class_id);

}  // namespace shardmax
