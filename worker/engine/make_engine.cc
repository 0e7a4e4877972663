#include "worker/engine/make_engine.h"

#include "worker/base/status.h"
#include "worker/engine/cpu/cpu_engine.h"
#include "worker/engine/reference/reference_engine.h"

namespace shardmax {

absl::StatusOr<EngineChoice> MakeEngine(EngineKind kind, const EngineOptions& options) {
  EngineChoice choice;
  if (kind == EngineKind::kReference) {
    SHARDMAX_ASSIGN_OR_RETURN(choice.engine, MakeReferenceEngine(options));
    choice.description = "reference engine, float64, one thread";
  } else {
    SHARDMAX_ASSIGN_OR_RETURN(choice.engine, MakeCpuEngine(options));
    choice.description = DescribeCpuEngine(options);
  }
  return choice;
}

}  // namespace shardmax
