// The target logit: one monotone function for every margin loss.
//
// f = (-1)^j cos(phi) - 2j - m3 with phi = m1 theta_y + m2, j = floor(phi / pi): A-Softmax (m1), ArcFace (m2),
// AM-Softmax (m3) and their mixtures; unified in arXiv:1801.07698 and arXiv:1812.11317. It is at once the threshold
// above which another class is a support vector.
#pragma once

#include "worker/loss/loss_params.h"
#include "worker/loss/portable.h"

namespace shardmax {

struct TargetLogit {
  double value = 0;       // f, before the scale s
  double derivative = 0;  // df / dcos_y
};

// The derivative is taken at an angle of at least this many radians from 0 and pi, where that of ArcFace is infinite.
// The gradients of weights and features hold a factor sin(theta), so what reaches them there vanishes all the same.
inline constexpr double kMinSineAngle = 1e-4;

// f and df/dcos at cos_y. `cos_y` may lie outside [-1, 1] by rounding.
SHARDMAX_HOST_DEVICE inline TargetLogit EvaluateTargetLogit(const LossParams& loss, double cos_y) {
  constexpr double kPi = 3.14159265358979323846;
  const double cosine = cos_y > 1 ? 1 : (cos_y < -1 ? -1 : cos_y);
  if (loss.extension == Extension::kEasy && cosine <= 0) return {cosine, 1};
  const double theta = std::acos(cosine);
  const double phi = loss.m1 * theta + loss.m2;
  if (loss.extension == Extension::kLinear && phi > kPi) {
    return {cosine - loss.m2 * std::sin(loss.m2), 1};
  }
  const double j = std::floor(phi / kPi);
  const double sign = std::fmod(j, 2.0) == 0 ? 1 : -1;
  const double low = kMinSineAngle;
  const double high = kPi - kMinSineAngle;
  const double safe_theta = theta < low ? low : (theta > high ? high : theta);
  // (-1)^j sin(phi) is |sin(phi)|, which does not depend on the side of a multiple of pi that rounding put phi on.
  const double slope = loss.m1 * std::fabs(std::sin(loss.m1 * safe_theta + loss.m2)) / std::sin(safe_theta);
  return {sign * std::cos(phi) - 2 * j - loss.m3, slope};
}

}  // namespace shardmax
