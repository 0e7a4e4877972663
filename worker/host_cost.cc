#include "worker/host_cost.h"

#include <fmt/format.h>

#include <cmath>

#include "worker/engine/cpu/tile_plan.h"
#include "worker/shard_snapshot.h"

namespace shardmax {
namespace {

double InMegabytes(int64_t bytes) {
  return static_cast<double>(bytes) / 1e6;
}

int64_t CosineBytes(CosineStorage cosines) {
  if (cosines == CosineStorage::kRecompute) return 0;
  return cosines == CosineStorage::kKeepInt16 ? 2 : 4;
}

}  // namespace

HostCost CostOnHost(const EngineOptions& options) {
  constexpr int64_t kColumns = 16;
  constexpr int64_t kFloatBytes = sizeof(float);
  const int64_t classes = options.shard.count;
  const bool sampled = options.sample_rate < 1;
  const auto active = static_cast<int64_t>(std::ceil(static_cast<double>(classes) * options.sample_rate));
  const int64_t padded_rows = (options.batch_rows + kColumns - 1) / kColumns * kColumns;
  const OperandType type = OperandsFor(options.precision);
  const int64_t tile = PlanTiles(options, type, SecondLevelCacheBytes()).tile_classes;
  HostCost cost = {.weight_bytes = classes * options.dim * kFloatBytes, .mapped = !options.storage_folder.empty()};
  cost.state_bytes = ShardSnapshot::BytesOf(options) - cost.weight_bytes;
  // Norms and the steps that each class has done; the active classes, or all to be caught up.
  cost.class_bytes = classes * kFloatBytes * (sampled ? 3 : 1) + (sampled ? active * kFloatBytes : 0);
  cost.cosine_bytes = active * padded_rows * CosineBytes(options.cosines);
  const int64_t of_thread = tile * padded_rows + tile * options.dim + options.batch_rows * options.dim;
  cost.batch_bytes = kFloatBytes * (5 * options.batch_rows * options.dim + options.threads * of_thread);
  return cost;
}

std::string DescribeHostCost(const EngineOptions& options, int ranks, int keep) {
  const HostCost cost = CostOnHost(options);
  const double of_checkpoint = InMegabytes(cost.checkpoint_bytes()) * ranks;
  std::string text = fmt::format(
      "cpu backend, memory of a rank: {:.0f} MB ({}weights {:.0f}, optimizer state {:.0f}{}, norms and counters "
      "{:.0f}, "
      "kept cosines {:.0f}, batch and tiles {:.0f}), and what the process takes besides\n",
      InMegabytes(cost.memory_bytes()), cost.mapped ? "in files: " : "", InMegabytes(cost.weight_bytes),
      InMegabytes(cost.state_bytes), cost.mapped ? "; in memory:" : "", InMegabytes(cost.class_bytes),
      InMegabytes(cost.cosine_bytes), InMegabytes(cost.batch_bytes));
  if (cost.mapped) {
    text += fmt::format(
        "files of train.storage: {:.0f} MB a rank, {:.0f} MB together; memory beyond the above holds as "
        "much of them as fits\n",
        InMegabytes(cost.checkpoint_bytes()), of_checkpoint);
  } else {
    text += fmt::format("a snapshot, so that training goes on while a checkpoint is written: {:.0f} MB more a rank\n",
                        InMegabytes(cost.checkpoint_bytes()));
  }
  return text + fmt::format("a checkpoint: {:.0f} MB; on the disk at most {} of them, {:.0f} MB\n", of_checkpoint,
                            keep + 1, of_checkpoint * (keep + 1));
}

}  // namespace shardmax
