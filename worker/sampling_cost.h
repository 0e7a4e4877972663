// What a sampled head costs beside its steps, worked out from the shapes alone: for --dry_run.
#pragma once

#include <cstdint>
#include <string>

#include "worker/engine/engine.h"
#include "worker/training_plan.h"

namespace shardmax {

// On the rank with the largest shard. Bytes are those that this rank sends, as CommStats counts them; without a graph
// of nearest classes those of it are 0.
struct SamplingCost {
  int64_t active_classes = 0;   // Of a step, in the mean, if labels are spread over the ranks.
  int64_t graph_bytes = 0;      // Memory.
  int64_t neighbour_bytes = 0;  // Of the all-gather of a step, if labels are spread over the ranks.
  double build_flops = 0;       // Products of a graph.
  int64_t build_bytes = 0;      // All-gathers of a graph, but for two agreements.
  int64_t recall_flops = 0;     // Products of a measurement of recall.
};

SamplingCost CostOfSampling(const TrainingPlan& plan, int64_t num_classes, int64_t dim, int64_t rows, int ranks);

// Several lines; none if all classes take part.
std::string DescribeSampling(const TrainingPlan& plan, int64_t num_classes, int64_t dim, int64_t rows, int ranks);

}  // namespace shardmax
