// The class weights that a job without others starts from.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "worker/engine/engine.h"

namespace shardmax {

// Draws the weights of the engine's shard from the normal distribution of mean 0 and `stddev`. What a class gets
// depends on the seed and its global id alone, so it does not depend on the number of ranks, nor on that of the
// engine's threads, which are all used.
absl::Status DrawWeights(Engine& engine, uint32_t seed, double stddev);

}  // namespace shardmax
