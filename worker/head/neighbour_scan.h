// Builds the graph of nearest classes: every class centre against every other, in blocks that travel.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "worker/comm/communicator.h"
#include "worker/engine/engine.h"
#include "worker/head/neighbour_graph.h"

namespace shardmax {

// Bounds of a plan; 0: by the rule of memory.
struct NeighbourScanLimits {
  int64_t panel_rows = 0;
  int64_t block_rows = 0;
};

// How a rank cuts the work. A panel of its own rows meets the blocks of all ranks, round by round; then the next panel.
struct NeighbourScanPlan {
  int64_t panel_rows = 0;  // Of a panel.
  int64_t block_rows = 0;  // That each rank sends in a round.
  int64_t panels = 0;      // Alike on every rank, as `rounds`: those of the largest shard.
  int64_t rounds = 0;      // Of each panel.
  int64_t row_bytes = 0;   // Of a row on the wire.

  // For C classes of width D on N ranks. By the rule 180 MB of memory a rank, whatever C is.
  static NeighbourScanPlan Of(int64_t num_classes, int64_t dim, int ranks, int64_t neighbours, Precision precision,
                              const NeighbourScanLimits& limits = {});
};

// Fills `graph` with the k classes of largest cosine of each class, ties to the lower id, never itself. A class without
// a direction has cosine 0 with all. Exact: every pair is multiplied, in products of one shape, so that the cosine of
// two classes has the same bits whichever ranks they are on, and the graph does not depend on N. It does on `precision`
// (BFLOAT16: directions are rounded to it) and, where cosines differ by rounding alone, on the processor.
//
// Every class must be caught up. Computes on the threads of engine.options(), and reads its rows in pieces; the engine
// is not changed. Collective: panels x rounds all-gathers of a block and a verdict, and two agreements; the error of
// the lowest rank with one comes back on all. FailedPrecondition, naming the class: weights that are not finite.
// ResourceExhausted, Internal: no memory, or oneDNN refused. After an error the graph is not to be used.
absl::Status BuildNeighbourGraph(Communicator& comm, const Engine& engine, NeighbourGraph& graph,
                                 const NeighbourScanLimits& limits = {});

}  // namespace shardmax
