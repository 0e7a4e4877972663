// What the steps that a class took no part in would have done to it: weight decay and momentum, in closed form.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "worker/optim/update_rule.h"

namespace shardmax {

// A step of SGD without a gradient is linear in a weight and its momentum, and so are any number of them:
//   w' = weight_of_weight w + weight_of_momentum m,   m' = momentum_of_weight w + momentum_of_momentum m.
struct DecayMap {
  double weight_of_weight = 1, weight_of_momentum = 0;
  double momentum_of_weight = 0, momentum_of_momentum = 1;

  // One such step: m' = momentum m + weight_decay w, w' = w - lr m'.
  static DecayMap OfStep(const OptimizerParams& params, double lr);
  // First `before`, then this.
  DecayMap After(const DecayMap& before) const;
};

// The maps of the steps [from, now) for every `from` that is asked for. Formula: docs/math.md#sampled-classes. SGD
// without Nesterov only.
class SkippedSteps {
 public:
  // `rate_of(step)` is the learning rate of a step, for all steps from 0.
  SkippedSteps(const OptimizerParams& params, std::function<double(int64_t)> rate_of)
      : params_(params), rate_of_(std::move(rate_of)) {}

  // `now` steps are done.
  void MoveTo(int64_t now);
  int64_t now() const { return now_; }

  // Prepares Since(from) for first <= from <= now: work and memory of now - first maps.
  void Reach(int64_t first);
  // Thread-safe.
  const DecayMap& Since(int64_t from) const { return maps_[static_cast<size_t>(now_ - from)]; }

  // Of the rounding of caught-up state (state_row.h); another than that of the step `now`.
  uint64_t noise() const { return StepNoise(~params_.noise_seed, now_); }

 private:
  OptimizerParams params_;
  std::function<double(int64_t)> rate_of_;
  int64_t now_ = 0;
  std::vector<DecayMap> maps_ = {DecayMap()};  // maps_[g]: of the last g steps.
};

}  // namespace shardmax
