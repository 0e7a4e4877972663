// The learning rate of each step.
#pragma once

#include <cstdint>
#include <vector>

namespace shardmax {

enum class ScheduleCurve { kConstant, kCosine, kStep, kPolynomial };

// Warm-up, then a curve; formulas in docs/math.md#learning-rate. Equal to PyTorch's SequentialLR of LinearLR
// (start_factor 1 / warmup_steps) and CosineAnnealingLR, MultiStepLR or PolynomialLR.
struct Schedule {
  ScheduleCurve curve = ScheduleCurve::kConstant;
  double base_lr = 0.1;
  int64_t warmup_steps = 0;
  int64_t total_steps = 1;          // T, the length of the job
  double end_lr = 0;                // cosine, polynomial
  double power = 1;                 // polynomial
  double gamma = 0.1;               // step
  std::vector<int64_t> milestones;  // step: steps from 0 of the job, ascending

  // The learning rate of `step`, 0 <= step < total_steps.
  double At(int64_t step) const;
};

}  // namespace shardmax
