// The protocol of LFW.
#pragma once

#include "worker/eval/evaluation.h"

namespace shardmax {

// Evaluate() of a spec with `verification`. Scores are computed and summed in float64.
absl::StatusOr<std::optional<EvaluationResult>> Verify(const EvaluationContext& context);

}  // namespace shardmax
