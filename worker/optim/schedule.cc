#include "worker/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace shardmax {

double Schedule::At(int64_t step) const {
  if (step < warmup_steps) return base_lr * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  const double progress = static_cast<double>(step - warmup_steps) / static_cast<double>(total_steps - warmup_steps);
  switch (curve) {
    case ScheduleCurve::kConstant:
      return base_lr;
    case ScheduleCurve::kCosine:
      return end_lr + (base_lr - end_lr) * (1 + std::cos(std::numbers::pi * progress)) / 2;
    case ScheduleCurve::kStep: {
      const auto passed = std::upper_bound(milestones.begin(), milestones.end(), step) - milestones.begin();
      return base_lr * std::pow(gamma, static_cast<double>(passed));
    }
    case ScheduleCurve::kPolynomial:
      return end_lr + (base_lr - end_lr) * std::pow(1 - progress, power);
  }
  return base_lr;
}

}  // namespace shardmax
