// The engine of the CPU: class tiles that stay in cache, oneDNN for products, Highway for the rest.
#pragma once

#include <memory>
#include <string>

#include "worker/engine/engine.h"

namespace shardmax {

// Memory: weights and optimizer state, 4 bytes a class, kept cosines as EngineOptions::cosines says, about 12 B D bytes
// for the batch, and for each thread about 4 (T P + T D + B D) bytes, T being the tile's classes and P the padded
// batch. Never a gradient [C_r, D]. Nothing is allocated in a step once its sizes were met. The same threads and tiles
// give the same bits.
absl::StatusOr<std::unique_ptr<Engine>> MakeCpuEngine(const EngineOptions& options);

// What that engine runs on here, and why on nothing faster, for the log.
std::string DescribeCpuEngine(const EngineOptions& options);

}  // namespace shardmax
