// From the loss of a row to what its gradients need: once, for the head on the host and for the kernels of devices.
#pragma once

#include <cmath>

#include "worker/loss/normalizer.h"
#include "worker/loss/portable.h"
#include "worker/loss/target_logit.h"

namespace shardmax {

// Of one row, as RowGradients of worker/engine/engine.h has them.
struct RowGradient {
  float shift = 0;
  float row_scale = 0;
  float label_gradient = 0;
};

// `scale` is s, `row_weight` the weight of the row in the loss, 0 for one that is not kept.
SHARDMAX_HOST_DEVICE inline RowGradient EvaluateRowGradient(const RowLoss& row, const TargetLogit& target, double scale,
                                                            double row_weight) {
  RowGradient gradient;
  // A dropped row too: a large e^z would make NaN of its weight of 0.
  gradient.shift = static_cast<float>(row.log_normalizer);
  if (row_weight == 0) return gradient;
  const double weight = row_weight * row.logit_gradient;
  // What float32 loses of the normaliser's logarithm goes into the scale, where it costs nothing.
  gradient.row_scale = static_cast<float>(weight * std::exp(static_cast<double>(gradient.shift) - row.log_normalizer));
  gradient.label_gradient = static_cast<float>(-weight * row.other_share * scale * target.derivative);
  return gradient;
}

}  // namespace shardmax
