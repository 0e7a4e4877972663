#include "worker/head/random_weights.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "worker/base/status.h"
#include "worker/base/thread_pool.h"

namespace shardmax {
namespace {

// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15U);
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31U);
  }

 private:
  uint64_t state_;
};

// Box-Muller: two normal numbers from one 64-bit number.
void DrawRow(uint32_t seed, int64_t global_class_id, float stddev, std::span<float> row) {
  // Two rounds of mixing, so that the streams of neighbouring classes do not overlap.
  SplitMix64 generator(
      SplitMix64((static_cast<uint64_t>(seed) << 32U) ^ static_cast<uint64_t>(global_class_id)).Next());
  for (size_t i = 0; i < row.size(); i += 2) {
    const uint64_t bits = generator.Next();
    const float u = (static_cast<float>(bits >> 40U) + 1) * 0x1p-24F;  // (0, 1]
    const float angle = static_cast<float>(bits & 0xFFFFFFU) * (2 * std::numbers::pi_v<float> * 0x1p-24F);
    const float radius = stddev * std::sqrt(-2 * std::log(u));
    row[i] = radius * std::cos(angle);
    if (i + 1 < row.size()) row[i + 1] = radius * std::sin(angle);
  }
}

}  // namespace

absl::Status DrawWeights(Engine& engine, uint32_t seed, double stddev) {
  const Range shard = engine.options().shard;
  const int64_t dim = engine.options().dim;
  const int64_t chunk_classes = RowsOfChunk(shard.count, dim);
  std::vector<float> chunk(static_cast<size_t>(chunk_classes * dim));
  ThreadPool pool(engine.options().threads, engine.options().processors);
  for (int64_t first = shard.first; first < shard.end(); first += chunk_classes) {
    const MatrixView<float> rows = {chunk.data(), std::min(chunk_classes, shard.end() - first), dim};
    pool.ForEachPart(rows.rows, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) DrawRow(seed, first + i, static_cast<float>(stddev), rows.row(i));
    });
    SHARDMAX_RETURN_IF_ERROR(engine.WriteRows("weight", {first, rows.rows}, rows));
  }
  return absl::OkStatus();
}

}  // namespace shardmax
