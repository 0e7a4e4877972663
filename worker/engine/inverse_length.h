// Where a row has a direction, as code that hosts and devices compile.
#pragma once

#include <cmath>
#include <limits>

#include "worker/loss/portable.h"

namespace shardmax {

// 1 / sqrt(square). 0 where the length is below the smallest normal float32, as that of zeros: such a row has no
// direction, and its cosines and gradients are 0. NaN where the length is not a finite float32.
SHARDMAX_HOST_DEVICE inline double InverseLength(double square) {
  const double length = std::sqrt(square);
  if (length < static_cast<double>(std::numeric_limits<float>::min())) return 0;
  if (!(length <= static_cast<double>(std::numeric_limits<float>::max()))) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  return 1 / length;
}

}  // namespace shardmax
