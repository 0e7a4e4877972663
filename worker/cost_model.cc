#include "worker/cost_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace shardmax {
namespace {

constexpr int kRanksOfMachine = 8;

double Megabytes(int64_t bytes) {
  return static_cast<double>(bytes) / 1e6;
}

// A ring passes every other rank's part through this one.
int64_t RingBytes(int64_t gathered_parts, int64_t summed, int64_t scattered, int64_t ranks) {
  return gathered_parts * (ranks - 1) + 2 * summed * (ranks - 1) / ranks + scattered * (ranks - 1) / ranks;
}

}  // namespace

DeviceStepCost CostOfStep(const EngineOptions& options, int64_t rows, int ranks, bool with_feature_gradients,
                          int64_t l2_bytes) {
  const int64_t classes = options.shard.count;
  EngineOptions of_rank = options;
  of_rank.ranks = ranks;
  DeviceStepCost cost = {.plan = cuda::PlanDevice(of_rank, rows, l2_bytes)};
  const cuda::BlockSizes block = cuda::SizesOfBlocks(rows, (rows + ranks - 1) / ranks, options.dim);
  cost.gather_bytes = block.row_bytes;
  cost.label_bytes = 4 * rows;
  cost.normalise_bytes = block.partial_bytes;
  cost.scatter_bytes = with_feature_gradients ? 4 * ranks * block.gradient_floats : 0;

  // Cosines for the normaliser, cosines again, weight gradients, and feature gradients if wanted.
  cost.product_flops = (with_feature_gradients ? 4 : 3) * 2 * rows * classes * cost.plan.stride;
  // The operand of products is read to score and again in the backward pass; the update reads and writes the masters
  // and the state, and writes the copy.
  const int64_t operand = options.precision == Precision::kBfloat16 ? cost.plan.copy_bytes : cost.plan.weight_bytes;
  cost.hbm_bytes = 2 * operand + 2 * (cost.plan.weight_bytes + cost.plan.state_bytes) + cost.plan.copy_bytes;
  cost.wire_bytes = RingBytes(cost.gather_bytes + cost.normalise_bytes, cost.label_bytes, cost.scatter_bytes, ranks);
  cost.host_bytes = block.row_bytes + (with_feature_gradients ? 4 * block.gradient_floats : 0);
  return cost;
}

DeviceRates H100(int ranks) {
  return {.name = "H100 SXM",
          .float32_flops = 67e12,
          .bfloat16_flops = 989e12,
          .hbm_bytes = 3.35e12,
          .host_bytes = 55e9,
          .wire_bytes = ranks <= kRanksOfMachine ? 450e9 : 50e9,
          .memory_bytes = int64_t{80} * 1000 * 1000 * 1000,
          .l2_bytes = int64_t{50} << 20};
}

std::string DescribeCost(const EngineOptions& options, int64_t rows, int ranks, bool with_feature_gradients,
                         const DeviceRates& rates) {
  const DeviceStepCost cost = CostOfStep(options, rows, ranks, with_feature_gradients, rates.l2_bytes);
  const cuda::DevicePlan& plan = cost.plan;
  const bool bfloat16 = options.precision == Precision::kBfloat16;
  const double flops = bfloat16 ? rates.bfloat16_flops : rates.float32_flops;
  std::vector<std::pair<double, std::string>> bounds = {
      {static_cast<double>(cost.product_flops) / flops, "products"},
      {static_cast<double>(cost.hbm_bytes) / rates.hbm_bytes, "device memory"},
      {static_cast<double>(cost.wire_bytes) / rates.wire_bytes, "wire"},
      {static_cast<double>(cost.host_bytes) / rates.host_bytes, "copies to and from the host"}};
  std::string text = fmt::format(
      "{} classes x {} on a rank of {} ranks, batches of {} rows, {}\n"
      "memory of a rank: {:.0f} MB (weights {:.0f}, optimizer state {:.0f}, bfloat16 copy {:.0f}, tile {:.0f}, batch "
      "{:.0f}, exchange {:.0f}, workspace {:.0f}); {} has {:.0f} MB{}\n"
      "collectives of a step, bytes of a rank: gather {}, label {}, normalise {}, scatter {}\n"
      "products of a step: {:.3e} operations, in tiles of {} classes\n"
      "model, not measured, of a step on {}:",
      options.shard.count, options.dim, ranks, rows, bfloat16 ? "BFLOAT16" : "FLOAT32", Megabytes(plan.total_bytes()),
      Megabytes(plan.weight_bytes), Megabytes(plan.state_bytes), Megabytes(plan.copy_bytes), Megabytes(plan.tile_bytes),
      Megabytes(plan.batch_bytes), Megabytes(plan.exchange_bytes), Megabytes(plan.workspace_bytes), rates.name,
      Megabytes(rates.memory_bytes), plan.total_bytes() > rates.memory_bytes ? ": it does not fit" : "",
      cost.gather_bytes, cost.label_bytes, cost.normalise_bytes, cost.scatter_bytes,
      static_cast<double>(cost.product_flops), plan.tile_classes, rates.name);
  for (const auto& [seconds, what] : bounds) text += fmt::format(" {} {:.3f} ms,", what, seconds * 1e3);
  const auto largest = std::max_element(bounds.begin(), bounds.end());
  return text + fmt::format(" so {} dominate\n", largest->second);
}

}  // namespace shardmax
