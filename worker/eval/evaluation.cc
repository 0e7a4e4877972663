#include "worker/eval/evaluation.h"

#include "worker/base/status.h"
#include "worker/eval/all_pairs.h"
#include "worker/eval/identification.h"
#include "worker/eval/verification.h"

namespace shardmax {

absl::StatusOr<std::optional<EvaluationResult>> Evaluate(const EvaluationContext& context) {
  switch (context.evaluate.protocol_case()) {
    case v1::Evaluate::kVerification:
      return Verify(context);
    case v1::Evaluate::kIdentification:
      return Identify(context);
    case v1::Evaluate::kAllPairs:
      return CompareAllPairs(context);
    default:
      return absl::InternalError("the protocol of a resolved spec is not known");
  }
}

}  // namespace shardmax
