// Builds the graph of nearest classes: every class centre against every other, in blocks that travel.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "worker/comm/communicator.h"
#include "worker/engine/engine.h"
#include "worker/head/neighbour_graph.h"

namespace shardmax {

// Sizes of a plan; 0: by the rule of memory.
struct NeighbourScanLimits {
  int64_t tile_rows = 0;
  int64_t panel_rows = 0;
  int64_t block_rows = 0;
};

// How a rank cuts the work. A panel of its own rows meets the later rows of the rank, then the blocks of all other
// ranks, round by round; then the next panel.
struct NeighbourScanPlan {
  int64_t tile_rows = 0;   // Of a tile, both ways: what one product multiplies.
  int64_t panel_rows = 0;  // Of a panel, a multiple of tile_rows.
  int64_t own_rows = 0;    // Of its own that a panel meets at a time, a multiple of tile_rows.
  int64_t block_rows = 0;  // That each rank sends in a round.
  int64_t panels = 0;      // Alike on every rank, as `rounds`: those of the largest shard.
  int64_t rounds = 0;      // Of each panel; none on one rank.
  int64_t row_bytes = 0;   // Of a row on the wire.

  // For C classes of width D on N ranks. By the rule 120 MB of memory a rank up to D = 512 and 135 MB up to
  // 16 384, whatever C is.
  static NeighbourScanPlan Of(int64_t num_classes, int64_t dim, int ranks, Precision precision,
                              const NeighbourScanLimits& limits = {});
};

// Fills `graph` with the k classes of largest cosine of each class, ties to the lower id, never itself. A class without
// a direction has cosine 0 with all. Exact: products, in bfloat16 where the processor has it, only say which pairs
// cannot be neighbours; the cosine of any other is its dot product in float32, which is the same bits whichever ranks
// the two are on. So the graph does not depend on N or on how products are made. It does on `precision` (BFLOAT16:
// directions are rounded to it) and, where cosines differ by rounding alone, on the width of the processor's vectors.
//
// Two classes of this rank are multiplied once, those of two ranks by both: candidates need not travel. Between two
// collectives a rank multiplies a panel with what follows it of its own shard, minutes where a shard has ten million
// classes: what one rank needs longer than another must fit into the communicator's deadline.
//
// Every class must be caught up. Computes on the threads of engine.options(), and reads its rows in pieces; the engine
// is not changed. Memory: that of the plan, and 4 (k + 3) bytes for each class of the rank until it returns.
// Collective: panels x rounds all-gathers of a block and a verdict, and two agreements; the error of the lowest rank
// with one comes back on all. FailedPrecondition, naming the class: weights that are not finite. ResourceExhausted,
// Internal: no memory, or oneDNN refused. After an error the graph is not to be used.
absl::Status BuildNeighbourGraph(Communicator& comm, const Engine& engine, NeighbourGraph& graph,
                                 const NeighbourScanLimits& limits = {});

}  // namespace shardmax
