// The pairs of two tiles of directions that may be neighbours, and their cosines.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/base/aligned_buffer.h"
#include "worker/head/direction_tiles.h"

namespace shardmax {

// A product that is fast says which pairs may matter; of those the float32 dot product is taken. That is the same
// number for both orders of a pair, and whatever the product was, so what is kept of all pairs depends on directions
// alone. Where nearly all classes are within the product's error of each other it rules nothing out, and a tile takes
// several times as long. One thread uses one object.
class PairFinder {
 public:
  struct Pair {
    int32_t row;     // Of the first tile.
    int32_t column;  // Row of the second.
    float cosine;    // The dot product in float32.
  };

  // `product` as of TileProduct. ResourceExhausted.
  static absl::StatusOr<PairFinder> Make(const MatMulShape& product);

  // Every pair whose cosine is at least the floor of its row or that of its column, and some more. Left out are pairs
  // of no class and, where `upper`, those whose id of the column is not above that of the row. Changes the floors.
  // Valid until the next.
  absl::StatusOr<std::span<const Pair>> Find(const DirectionTiles::Tile& a, const DirectionTiles::Tile& b,
                                             std::span<float> row_floors, std::span<float> column_floors, bool upper);

  MatMul& multiply() { return multiply_; }

 private:
  void TakeRow(const DirectionTiles::Tile& a, const DirectionTiles::Tile& b, int64_t row, int64_t found, bool upper);

  MatMulShape product_;
  MatMul multiply_;
  AlignedBuffer<float> products_;  // [tile_rows, tile_rows]
  std::vector<int32_t> places_;    // Of a row.
  std::vector<float> cosines_;     // Of these.
  std::vector<Pair> pairs_;
};

}  // namespace shardmax
