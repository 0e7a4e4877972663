// The loss of a job as numbers.
#pragma once

#include <cstdint>

namespace shardmax {

// What the target logit does where m1 theta + m2 passes pi. See docs/math.md#target-logit.
enum class Extension { kMonotone, kEasy, kLinear };

// Neutral values make the plain softmax loss over cosines.
struct LossParams {
  double scale = 32;  // s
  double m1 = 1;      // multiplies the angle
  double m2 = 0;      // radians added to the angle
  double m3 = 0;      // subtracted from the cosine
  Extension extension = Extension::kMonotone;
  double t = 1;      // emphasis of support vectors
  double gamma = 0;  // focal exponent
  double keep = 1;   // share of rows that hard mining keeps
};

// `params` at `step` (from 0) of a warm-up over `warmup_steps`: m1, m2, m3 and t are at the fraction
// min(1, step / warmup_steps) of the way from neutral (1, 0, 0, 1).
inline LossParams WarmedUp(LossParams params, int64_t step, int64_t warmup_steps) {
  if (step >= warmup_steps) return params;
  const double fraction = static_cast<double>(step) / static_cast<double>(warmup_steps);
  params.m1 = 1 + fraction * (params.m1 - 1);
  params.m2 *= fraction;
  params.m3 *= fraction;
  params.t = 1 + fraction * (params.t - 1);
  return params;
}

}  // namespace shardmax
