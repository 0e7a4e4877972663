#include "worker/engine/make_engine.h"

#include "worker/base/status.h"
#include "worker/engine/cpu/cpu_engine.h"
#include "worker/engine/cpu/tile_kernels.h"
#include "worker/engine/reference/reference_engine.h"

namespace shardmax {

absl::StatusOr<EngineChoice> MakeEngine(EngineKind kind, const EngineOptions& options) {
  EngineChoice choice;
  if (kind == EngineKind::kReference) {
    SHARDMAX_ASSIGN_OR_RETURN(choice.engine, MakeReferenceEngine(options));
    choice.description = "reference engine, float64, one thread";
  } else {
    SHARDMAX_ASSIGN_OR_RETURN(choice.engine, MakeCpuEngine(options));
    choice.description =
        fmt::format("cpu engine, {} kernels, {} products, {} threads", KernelTarget(),
                    options.precision == Precision::kBfloat16 ? "bfloat16" : "float32", options.threads);
  }
  return choice;
}

}  // namespace shardmax
