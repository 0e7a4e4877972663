// The nearest classes of many, found pair by pair in any order.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "absl/status/statusor.h"
#include "worker/base/aligned_buffer.h"
#include "worker/base/matrix_view.h"

namespace shardmax {

// Of each of n rows the k classes of highest cosine, ties to the lower id, whatever the order they are offered in.
//
// Rows are cut into tiles of tile_rows. Threads may work on one tile only under its lock; Floors takes it by itself.
class NearestSets {
 public:
  NearestSets() = default;

  // `ids` [n, k] belongs to the caller and holds what is found. Memory: 4 n (k + 3) bytes, and a lock a tile.
  // ResourceExhausted, with the bytes.
  static absl::StatusOr<NearestSets> Make(MatrixView<int32_t> ids, int64_t tile_rows);

  // floors[i], of tile_rows: a cosine below it is not among the k highest of row i of the tile. -infinity while there
  // are no k; infinity beyond the last row.
  void Floors(int64_t tile, float* floors);

  [[nodiscard]] std::unique_lock<std::mutex> Lock(int64_t tile) { return std::unique_lock(locks_[tile]); }

  // An id comes to a row at most once. No NaN.
  void Offer(int64_t row, float cosine, int32_t id) {
    if (cosine >= floors_.data()[row]) Take(row, cosine, id);
  }

  // Leaves the ids of the row nearest first; the row takes no more offers.
  void Sort(int64_t row);

 private:
  void Take(int64_t row, float cosine, int32_t id);

  MatrixView<int32_t> ids_ = {};
  int64_t tile_rows_ = 0;
  AlignedBuffer<float> cosines_;   // [n, k]
  AlignedBuffer<int32_t> counts_;  // [n]
  AlignedBuffer<int32_t> worst_;   // [n]: the place of the worst of k.
  AlignedBuffer<float> floors_;    // [n]: its cosine.
  std::unique_ptr<std::mutex[]> locks_;
};

}  // namespace shardmax
