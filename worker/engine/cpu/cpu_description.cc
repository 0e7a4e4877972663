#include "absl/strings/str_join.h"
#include "worker/base/status.h"
#include "worker/engine/cpu/cpu_engine.h"
#include "worker/engine/cpu/matmul.h"
#include "worker/engine/cpu/tile_kernels.h"
#include "worker/engine/cpu/tile_plan.h"

namespace shardmax {

std::string DescribeCpuEngine(const EngineOptions& options) {
  const OperandType type = OperandsFor(options.precision);
  const int64_t cache_bytes = SecondLevelCacheBytes();
  const char* products = type == OperandType::kFloat32    ? "float32"
                         : type == OperandType::kBfloat16 ? "bfloat16"
                                                          : "bfloat16 (computed in float32)";
  const char* cosines = options.cosines == CosineStorage::kKeepFloat32 ? "kept in float32"
                        : options.cosines == CosineStorage::kKeepInt16 ? "kept in int16"
                                                                       : "computed twice";
  const bool bfloat16_state =
      options.optimizer.state_type == StateType::kBfloat16 && !options.optimizer.StateNames().empty();
  const std::string sampled =
      options.sample_rate < 1 ? fmt::format(", {:g} % of the classes a step", options.sample_rate * 100) : "";
  const char* state = bfloat16_state ? ", optimizer state in bfloat16" : "";
  const bool bound = static_cast<int>(options.processors.size()) == options.threads;
  return fmt::format(
      "cpu engine, {} kernels, {} products on {}, cosines {}{}{}, tiles of {} classes for {} KiB of cache, {} "
      "threads {}",
      KernelTarget(), products, ProductTarget(), cosines, state, sampled,
      PlanTiles(options, type, cache_bytes).tile_classes, cache_bytes / 1024, options.threads,
      bound ? fmt::format("on processors {}", absl::StrJoin(options.processors, ",")) : "not bound");
}

}  // namespace shardmax
