// What a job takes on hosts, worked out from the shapes alone: for --dry_run and docs/operations.md.
#pragma once

#include <cstdint>
#include <string>

#include "worker/engine/engine.h"

namespace shardmax {

// Of the rank with the largest shard, on the cpu backend. What the process takes besides (libraries, MPI) is not in it.
struct HostCost {
  int64_t weight_bytes = 0;
  int64_t state_bytes = 0;
  int64_t class_bytes = 0;   // Norms; of a sampled head the counters and lists of its classes too.
  int64_t cosine_bytes = 0;  // Kept between the two passes of a step.
  int64_t batch_bytes = 0;   // Rows, their gradients, and the tiles of the threads.
  bool mapped = false;       // Weights and state are in files.

  int64_t memory_bytes() const {
    return class_bytes + cosine_bytes + batch_bytes + (mapped ? 0 : weight_bytes + state_bytes);
  }
  // Of this rank's file of a checkpoint, and of a snapshot.
  int64_t checkpoint_bytes() const { return weight_bytes + state_bytes; }
};

HostCost CostOnHost(const EngineOptions& options);

// Some lines: memory and files of a rank, and what the checkpoints of all `ranks` take, of which `keep` are kept.
std::string DescribeHostCost(const EngineOptions& options, int ranks, int keep);

}  // namespace shardmax
