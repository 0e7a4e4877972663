// Directions of classes in tiles, as products of two of them take them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/base/aligned_buffer.h"
#include "worker/base/matrix_view.h"
#include "worker/engine/cpu/matmul.h"

namespace shardmax {

// The product of two tiles of `tile_rows` directions of width `dim`: the second is packed.
MatMulShape TileProduct(int64_t tile_rows, int64_t dim, bool bfloat16);

class DirectionTiles {
 public:
  enum class Side { kFirst, kSecond };  // Of the product.

  struct Tile {
    MatrixView<const float> rows;  // [tile_rows, D]
    std::span<const int32_t> ids;  // Of the classes; -1: none, and the row is zero.
    const void* operand;
    float residual;  // How long what the operand lacks of a row is, at most.
  };

  DirectionTiles() = default;

  // Room for `rows`, rounded up to tiles. `product` has bfloat16 or not. ResourceExhausted; Internal: oneDNN refused.
  static absl::StatusOr<DirectionTiles> Make(const MatMulShape& product, int64_t rows, Side side);

  // No classes any more; as many tiles as hold `rows`. The rows are to be written then, and their ids.
  void Resize(int64_t rows);
  int64_t tiles() const { return tiles_; }
  int64_t tile_rows() const { return product_.m; }
  float* row(int64_t i) { return rows_.data() + i * product_.k; }
  void SetClasses(int64_t first_row, int64_t count, int32_t first_class);

  // Makes the operand of a tile that is written, and its rows beyond the last class zero.
  absl::Status Prepare(int64_t tile, MatMul& multiply);

  Tile tile(int64_t i) const;

 private:
  // Writes the rows of a tile in bfloat16, and what that costs them.
  const void* Round(int64_t tile);

  MatMulShape product_;
  Side side_ = Side::kFirst;
  int64_t tiles_ = 0;
  int64_t operand_bytes_ = 0;  // Of a tile; 0: its rows as they are.
  AlignedBuffer<float> rows_;
  AlignedBuffer<uint16_t> rounded_;  // The rows in bfloat16, where products are.
  AlignedBuffer<std::byte> packed_;
  std::vector<float> residuals_;  // By tile.
  std::vector<int32_t> ids_;
};

}  // namespace shardmax
