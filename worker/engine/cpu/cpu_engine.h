// The engine of the CPU: class tiles that stay in cache, oneDNN for products, Highway for the rest.
#pragma once

#include <memory>

#include "worker/engine/engine.h"

namespace shardmax {

// Memory: weights and optimizer state, 4 bytes a class, and for each thread about 4 (T P + T D + B D) bytes, T being
// the tile's classes and P the padded batch. Never [B, C_r] nor a gradient [C_r, D]. Logits are computed twice, once
// for the normaliser and once for the gradient. The same threads give the same bits.
absl::StatusOr<std::unique_ptr<Engine>> MakeCpuEngine(const EngineOptions& options);

}  // namespace shardmax
