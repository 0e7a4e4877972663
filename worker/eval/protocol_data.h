// The files that every protocol reads.
#pragma once

#include <string>
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

// A path of the spec, and the field that holds it.
struct PathField {
  std::string field;
  std::string path;
};

// Opens embeddings and their identities, and checks every row that counts, a part on each rank. Collective: an error of
// any rank comes back on all, as does that they do not see the same files.
absl::StatusOr<ProtocolData> OpenRows(const EvaluationContext& context, const PathField& embeddings,
                                      const PathField& identities);

// Those of evaluate.embeddings and evaluate.identities.
absl::StatusOr<ProtocolData> OpenProtocolData(const EvaluationContext& context);

}  // namespace shardmax
