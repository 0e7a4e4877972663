#include "worker/optim/skipped_steps.h"

namespace shardmax {

DecayMap DecayMap::OfStep(const OptimizerParams& params, double lr) {
  return {.weight_of_weight = 1 - lr * params.weight_decay,
          .weight_of_momentum = -lr * params.momentum,
          .momentum_of_weight = params.weight_decay,
          .momentum_of_momentum = params.momentum};
}

DecayMap DecayMap::After(const DecayMap& before) const {
  return {
      .weight_of_weight = weight_of_weight * before.weight_of_weight + weight_of_momentum * before.momentum_of_weight,
      .weight_of_momentum =
          weight_of_weight * before.weight_of_momentum + weight_of_momentum * before.momentum_of_momentum,
      .momentum_of_weight =
          momentum_of_weight * before.weight_of_weight + momentum_of_momentum * before.momentum_of_weight,
      .momentum_of_momentum =
          momentum_of_weight * before.weight_of_momentum + momentum_of_momentum * before.momentum_of_momentum};
}

void SkippedSteps::MoveTo(int64_t now) {
  now_ = now;
  maps_.resize(1);
}

void SkippedSteps::Reach(int64_t first) {
  while (static_cast<int64_t>(maps_.size()) <= now_ - first) {
    const int64_t step = now_ - static_cast<int64_t>(maps_.size());
    maps_.push_back(maps_.back().After(DecayMap::OfStep(params_, rate_of_(step))));
  }
}

}  // namespace shardmax
