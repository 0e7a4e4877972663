// Sizes that kernels, products and their plan share. Free of CUDA and of Abseil.
#pragma once

#include <cstdint>

namespace shardmax::cuda {

// Classes of a row that one block scores.
inline constexpr int64_t kScoreChunk = 2048;
// What cuBLASLt may use: NVIDIA's advice for Hopper.
inline constexpr int64_t kGemmWorkspaceBytes = int64_t{32} << 20;

// Slots of partial normalisers that a tile of `count` classes fills for each row.
constexpr int ScoreSlots(int64_t count) {
  return static_cast<int>((count + kScoreChunk - 1) / kScoreChunk);
}

// The nearest class of a row so far. Neutral: cosine -inf, class -1.
struct NearestClass {
  float cosine;
  int32_t global_class;
};

}  // namespace shardmax::cuda
