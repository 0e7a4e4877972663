// Evaluation jobs: from embeddings and identities to the figures of a protocol. docs/evaluation.md says what they mean.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "shardmax/v1/job.pb.h"
#include "worker/comm/communicator.h"
#include "worker/data/data_root.h"

namespace shardmax {

// Who runs an evaluation, on one rank. Asked and told between collectives, on the thread that evaluates.
class EvaluationHost {
 public:
  virtual ~EvaluationHost() = default;

  // Whether this rank asks to stop. A request of any rank counts for all.
  virtual bool StopRequested() = 0;

  // `done` of `total` pairs of all ranks are scored. The same on every rank.
  virtual void OnProgress(int64_t done, int64_t total) = 0;
};

// What an evaluation works with. Borrows.
struct EvaluationContext {
  Communicator& comm;
  const shardmax::v1::Evaluate& evaluate;  // Resolved (worker/spec).
  const DataRoots& roots;                  // Where its files lie.
  int threads = 1;
  std::vector<int> processors = {};  // If as many as threads, thread i is bound to processors[i].
  EvaluationHost& host;
};

// The result in the form of result.json: docs/evaluation.md#results. Filled on rank 0, empty on the others. But for
// `ranks` and `speed` it does not depend on the number of ranks and threads.
using EvaluationResult = nlohmann::ordered_json;

// Runs the protocol of the spec; nothing if it was asked to stop. Collective: every rank calls, and all return alike.
// InvalidArgument names the field, file and row that are wrong. Errors of the communicator: see there.
absl::StatusOr<std::optional<EvaluationResult>> Evaluate(const EvaluationContext& context);

// The result as lines for people.
std::vector<std::string> ResultTable(const EvaluationResult& result);

}  // namespace shardmax
