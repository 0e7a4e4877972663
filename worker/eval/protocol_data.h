// The files that every protocol reads.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "worker/eval/embeddings.h"
#include "worker/eval/evaluation.h"

namespace shardmax {

struct ProtocolData {
  Embeddings embeddings;
  std::vector<int64_t> identities;
  IdentityGroups groups;
};

// Opens evaluate.embeddings and evaluate.identities, and checks every row that counts, a part on each rank. Collective:
// an error of any rank comes back on all.
absl::StatusOr<ProtocolData> OpenProtocolData(const EvaluationContext& context);

}  // namespace shardmax
