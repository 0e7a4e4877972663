#include "worker/head/pair_finder.h"

#include <algorithm>

#include "worker/base/status.h"
#include "worker/engine/cpu/score_search.h"

namespace shardmax {
namespace {

// How far a product of two directions may be from their dot product in float32.
float ErrorBound(int64_t dim, float residual_a, float residual_b) {
  // Lengths are 1 (rounded to bfloat16 up to 1.004), so the sum of |x_i y_i| is about 1 at most, and each of two sums
  // of D products in float32 is off by D / 2 ulp at most, less as there are several partial sums. What is left to D
  // ulp, and 16 more, are for lengths and floors, which are rounded too.
  const float sums = static_cast<float>(dim + 16) * 0x1p-23F;
  // x·y - x'·y' = (x - x')·y + x'·(y - y').
  return sums + 1.01F * (residual_a + residual_b);
}

}  // namespace

absl::StatusOr<PairFinder> PairFinder::Make(const MatMulShape& product) {
  PairFinder finder;
  finder.product_ = product;
  SHARDMAX_ASSIGN_OR_RETURN(finder.products_, AlignedBuffer<float>::Allocate(product.m * product.n));
  finder.places_.resize(static_cast<size_t>(product.n + kScoreSearchRoom));
  finder.cosines_.resize(static_cast<size_t>(product.n));
  return finder;
}

absl::StatusOr<std::span<const PairFinder::Pair>> PairFinder::Find(const DirectionTiles::Tile& a,
                                                                   const DirectionTiles::Tile& b,
                                                                   std::span<float> row_floors,
                                                                   std::span<float> column_floors, bool upper) {
  SHARDMAX_RETURN_IF_ERROR(multiply_.Run(product_, a.operand, b.operand, products_.data()));
  const float slack = ErrorBound(product_.k, a.residual, b.residual);
  for (float& floor : row_floors) floor -= slack;
  for (float& floor : column_floors) floor -= slack;
  pairs_.clear();
  for (int64_t row = 0; row < product_.m && a.ids[static_cast<size_t>(row)] >= 0; ++row) {
    const int64_t found = FindAtLeastEither(products_.data() + row * product_.n, product_.n,
                                            row_floors[static_cast<size_t>(row)], column_floors.data(), places_.data());
    if (found > 0) TakeRow(a, b, row, found, upper);
  }
  return std::span<const Pair>(pairs_);
}

void PairFinder::TakeRow(const DirectionTiles::Tile& a, const DirectionTiles::Tile& b, int64_t row, int64_t found,
                         bool upper) {
  const int32_t least = upper ? a.ids[static_cast<size_t>(row)] + 1 : 0;
  const auto end = places_.begin() + found;
  const auto kept =
      std::remove_if(places_.begin(), end, [&](int32_t j) { return b.ids[static_cast<size_t>(j)] < least; });
  const auto count = static_cast<size_t>(kept - places_.begin());
  DotRows(a.rows.row(row), b.rows.data, std::span<const int32_t>(places_).first(count), cosines_.data());
  for (size_t i = 0; i < count; ++i) pairs_.push_back({static_cast<int32_t>(row), places_[i], cosines_[i]});
}

}  // namespace shardmax
