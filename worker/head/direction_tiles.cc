#include "worker/head/direction_tiles.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "worker/base/bfloat16.h"
#include "worker/base/status.h"
#include "worker/engine/cpu/score_search.h"
#include "worker/engine/cpu/tile_kernels.h"

namespace shardmax {

MatMulShape TileProduct(int64_t tile_rows, int64_t dim, bool bfloat16) {
  return {.m = tile_rows,
          .n = tile_rows,
          .k = dim,
          .lda = dim,
          .ldb = dim,
          .ldc = tile_rows,
          .transpose_b = true,
          .packed_b = true,
          .bfloat16 = bfloat16};
}

absl::StatusOr<DirectionTiles> DirectionTiles::Make(const MatMulShape& product, int64_t rows, Side side) {
  DirectionTiles made;
  made.product_ = product;
  made.side_ = side;
  const int64_t tiles = (rows + product.m - 1) / product.m;
  SHARDMAX_ASSIGN_OR_RETURN(made.rows_, AlignedBuffer<float>::Allocate(tiles * product.m * product.k));
  if (product.bfloat16) {
    SHARDMAX_ASSIGN_OR_RETURN(made.rounded_, AlignedBuffer<uint16_t>::Allocate(tiles * product.m * product.k));
  }
  if (side == Side::kSecond) {
    MatMul multiply;
    SHARDMAX_ASSIGN_OR_RETURN(const PackedLayout layout, multiply.LayoutOfB(product));
    made.operand_bytes_ = (layout.bytes + 63) / 64 * 64;
    SHARDMAX_ASSIGN_OR_RETURN(made.packed_, AlignedBuffer<std::byte>::Allocate(tiles * made.operand_bytes_));
  }
  made.residuals_.assign(static_cast<size_t>(tiles), 0);
  made.ids_.assign(static_cast<size_t>(tiles * product.m), -1);
  return made;
}

void DirectionTiles::Resize(int64_t rows) {
  tiles_ = (rows + product_.m - 1) / product_.m;
  std::ranges::fill(ids_, -1);
}

void DirectionTiles::SetClasses(int64_t first_row, int64_t count, int32_t first_class) {
  std::iota(ids_.begin() + first_row, ids_.begin() + first_row + count, first_class);
}

absl::Status DirectionTiles::Prepare(int64_t tile, MatMul& multiply) {
  const int64_t first = tile * product_.m;
  for (int64_t i = first; i < first + product_.m; ++i) {
    if (ids_[static_cast<size_t>(i)] < 0) std::fill_n(row(i), product_.k, 0.0F);
  }
  const void* operand = product_.bfloat16 ? Round(tile) : row(first);
  if (side_ == Side::kFirst) return absl::OkStatus();
  return multiply.PackB(product_, operand, packed_.data() + tile * operand_bytes_);
}

const void* DirectionTiles::Round(int64_t tile) {
  const int64_t first = tile * product_.m;
  uint16_t* rounded = rounded_.data() + first * product_.k;
  ToBfloat16(row(first), product_.m * product_.k, rounded);
  std::vector<float> lost(static_cast<size_t>(product_.k));
  float most = 0;
  for (int64_t i = 0; i < product_.m; ++i) {
    const float* whole = row(first + i);
    const uint16_t* kept = rounded + i * product_.k;
    for (size_t j = 0; j < lost.size(); ++j) lost[j] = whole[j] - FromBfloat16(kept[j]);
    constexpr int32_t kFirst[] = {0};
    float square = 0;
    DotRows(lost, lost.data(), kFirst, &square);
    most = std::max(most, square);
  }
  residuals_[static_cast<size_t>(tile)] = std::sqrt(most);
  return rounded;
}

DirectionTiles::Tile DirectionTiles::tile(int64_t i) const {
  const int64_t first = i * product_.m;
  const float* rows = rows_.data() + first * product_.k;
  const void* operand = rows;
  if (side_ == Side::kSecond) {
    operand = packed_.data() + i * operand_bytes_;
  } else if (product_.bfloat16) {
    operand = rounded_.data() + first * product_.k;
  }
  return {.rows = {rows, product_.m, product_.k},
          .ids = std::span(ids_).subspan(static_cast<size_t>(first), static_cast<size_t>(product_.m)),
          .operand = operand,
          .residual = residuals_[static_cast<size_t>(i)]};
}

}  // namespace shardmax
