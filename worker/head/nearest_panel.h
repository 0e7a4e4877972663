// The best candidates so far of many rows that are scored tile by tile.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "worker/base/aligned_buffer.h"

namespace shardmax {

// Threads may work on rows that differ.
class NearestPanel {
 public:
  // For `rows` rows, of which each keeps its `k` best; at most `tile` scores are added at a time. Memory: 8 bytes for
  // each of rows (2 k + tile) candidates. ResourceExhausted, with the bytes.
  static absl::StatusOr<NearestPanel> Make(int64_t rows, int64_t k, int64_t tile);

  // Bytes of a row of such a panel.
  static int64_t RowBytes(int64_t k, int64_t tile) { return 8 * (2 * k + tile); }

  // Forgets every candidate.
  void Clear();

  // Adds the scores of `ids`, as many; those below 0 and `self` are left out. An id comes to a row at most once.
  void Add(int64_t row, std::span<const float> scores, std::span<const int32_t> ids, int32_t self);

  // The k ids of the highest scores, highest first, ties to the lower id. Requires that as many were added.
  void Take(int64_t row, std::span<int32_t> ids);

 private:
  std::span<uint64_t> CandidatesOf(int64_t row);
  // Keeps the k best.
  void Prune(int64_t row);

  int64_t k_ = 0;
  int64_t room_ = 0;
  AlignedBuffer<uint64_t> keys_;   // [rows, room]: ascending is better first.
  AlignedBuffer<int64_t> counts_;  // [rows]
  AlignedBuffer<float> floors_;    // [rows]: a candidate below is not among the k best.
};

}  // namespace shardmax
