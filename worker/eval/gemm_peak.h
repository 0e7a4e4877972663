// How fast this machine multiplies matrices, here and now.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "worker/engine/engine.h"
#include "worker/eval/evaluation.h"

namespace shardmax {

// The floating-point operations a second of all ranks together, while every thread of every rank multiplies square
// matrices that fit its cache: the median of several runs of some milliseconds each. 0 for a scan of fewer `scan_flops`
// than make its speed worth telling. The same on every rank. Collective.
absl::StatusOr<double> MeasureGemmPeak(const EvaluationContext& context, Precision precision, double scan_flops);

}  // namespace shardmax
