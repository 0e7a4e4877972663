#include "worker/sampling_cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "worker/base/shard_range.h"
#include "worker/comm/verdict.h"
#include "worker/head/neighbour_lists.h"
#include "worker/head/neighbour_scan.h"

namespace shardmax {

SamplingCost CostOfSampling(const TrainingPlan& plan, int64_t num_classes, int64_t dim, int64_t rows, int ranks) {
  const int64_t shard = BalancedPart(num_classes, 0, ranks).count;
  const int64_t labels = std::min((rows + ranks - 1) / ranks, shard);
  SamplingCost cost;
  cost.active_classes = labels + std::llround(plan.sample_rate * static_cast<double>(shard - labels));
  cost.recall_flops = 2 * rows * shard * dim;
  if (!plan.nearest.has_value()) return cost;
  const int64_t neighbours = std::min(plan.nearest->neighbours, num_classes - 1);
  cost.graph_bytes = shard * neighbours * static_cast<int64_t>(sizeof(int32_t));
  cost.neighbour_bytes = NeighbourLists::BlockBytes(labels, neighbours);
  // Pairs of two classes of the rank once.
  cost.build_flops = static_cast<double>(dim * shard) * static_cast<double>(2 * num_classes - shard);
  const NeighbourScanPlan scan = NeighbourScanPlan::Of(num_classes, dim, ranks, plan.precision);
  cost.build_bytes =
      scan.panels * scan.rounds * (scan.block_rows * scan.row_bytes + static_cast<int64_t>(sizeof(StepVerdict)));
  return cost;
}

std::string DescribeSampling(const TrainingPlan& plan, int64_t num_classes, int64_t dim, int64_t rows, int ranks) {
  if (plan.sample_rate >= 1) return "";
  const SamplingCost cost = CostOfSampling(plan, num_classes, dim, rows, ranks);
  std::string text = fmt::format(
      "train.sampling, which the cuda backend has not: what stands above is of all classes. On other backends a step "
      "is over about {} classes of a rank\n",
      cost.active_classes);
  if (plan.nearest.has_value()) {
    text += fmt::format(
        "graph of nearest classes: {:.0f} MB a rank; each of its builds, every {} steps, multiplies with {:.3e} "
        "operations and sends {} bytes; a step sends {} bytes for it\n",
        static_cast<double>(cost.graph_bytes) / 1e6, plan.nearest->rebuild_every_steps, cost.build_flops,
        cost.build_bytes, cost.neighbour_bytes);
  }
  if (plan.recall_every_steps > 0) {
    text += fmt::format("recall of support vectors: every {} steps {:.3e} operations of a rank\n",
                        plan.recall_every_steps, static_cast<double>(cost.recall_flops));
  }
  return text;
}

}  // namespace shardmax
