// The protocol of MegaFace.
#pragma once

#include "worker/eval/evaluation.h"

namespace shardmax {

// Evaluate() of a spec with `identification`.
absl::StatusOr<std::optional<EvaluationResult>> Identify(const EvaluationContext& context);

}  // namespace shardmax
