// The rows of a step's global batch, and those of the step after, which are gathered while that one computes.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "worker/base/shard_range.h"
#include "worker/comm/communicator.h"
#include "worker/head/gather_block.h"
#include "worker/head/step.h"

namespace shardmax {

// Called once or, where the step fails before, not at all, on another thread than the one that trains. Of what it
// returns global_rows, rank_rows, features, labels and status count; they are not read once the rows are gathered.
using NextRows = absl::FunctionRef<StepInput()>;

// Not thread-safe, but GatherNext() may run on one thread while another reads now().
class BatchRows {
 public:
  BatchRows(Communicator& comm, int64_t num_classes, int64_t dim) : comm_(comm), num_classes_(num_classes), dim_(dim) {}

  // Gathers those of `input` as now(). InvalidArgument as ShardedHead; or `before`, this rank's outcome so far, of the
  // lowest rank with an error. Collective.
  absl::Status Gather(const StepInput& input, const absl::Status& before) { return GatherInto(input, before, now_); }

  // Gathers the rows that Advance() makes now(); it returns what is wrong with them. Collective.
  void GatherNext(NextRows next);
  bool has_next() const { return has_next_; }
  // Requires has_next(). Not collective; the status is equal on every rank.
  absl::Status Advance();

  const GatherBlocks& now() const { return now_; }

 private:
  absl::Status GatherInto(const StepInput& input, const absl::Status& before, GatherBlocks& blocks);

  Communicator& comm_;
  int64_t num_classes_;
  int64_t dim_;
  std::vector<Range> parts_;  // Of what is being gathered.
  GatherBlocks now_;
  GatherBlocks next_;
  bool has_next_ = false;
  absl::Status next_status_;
};

}  // namespace shardmax
