// The protocol of Trillion Pairs.
#pragma once

#include "worker/eval/evaluation.h"

namespace shardmax {

// Evaluate() of a spec with `all_pairs`.
absl::StatusOr<std::optional<EvaluationResult>> CompareAllPairs(const EvaluationContext& context);

}  // namespace shardmax
