// The engine to compare the others with: slow, in float64, and as close to the formulas as code can be.
#pragma once

#include <memory>

#include "worker/engine/engine.h"

namespace shardmax {

// Keeps weights and state in float32, as every engine does, and computes everything else in float64. Stores [B, C_r].
// FLOAT32 only: Unimplemented for another precision. Single-threaded: options.threads is not used.
absl::StatusOr<std::unique_ptr<Engine>> MakeReferenceEngine(const EngineOptions& options);

}  // namespace shardmax
