// Lengths of rows: where a direction exists, and where it does not.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include "absl/status/status.h"
#include "worker/base/status.h"

namespace shardmax {

// 1 / |row|, summed in float64. 0 where the length is below the smallest normal float32, as that of zeros: such a row
// has no direction, and its cosines and gradients are 0. NaN where the length is not a finite float32.
inline double InverseNorm(std::span<const float> row) {
  double square = 0;
  for (const float x : row) square += static_cast<double>(x) * x;
  const double length = std::sqrt(square);
  if (length < static_cast<double>(std::numeric_limits<float>::min())) return 0;
  if (!(length <= static_cast<double>(std::numeric_limits<float>::max()))) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  return 1 / length;
}

// FailedPrecondition, naming the class, at the first inverse norm that is NaN. They are those of classes from
// `first_class` on.
template <typename T>
absl::Status CheckNorms(std::span<const T> inverse_norms, int64_t first_class) {
  for (size_t k = 0; k < inverse_norms.size(); ++k) {
    if (!std::isnan(inverse_norms[k])) continue;
    return Error(absl::StatusCode::kFailedPrecondition,
                 "the weights of class {} are not finite: they have diverged, lower the learning rate",
                 first_class + static_cast<int64_t>(k));
  }
  return absl::OkStatus();
}

}  // namespace shardmax
