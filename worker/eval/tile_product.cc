#include "worker/eval/tile_product.h"

#include "worker/base/status.h"

namespace shardmax {

TileProduct::TileProduct(const TileShape& shape)
    : shape_({.m = shape.probes,
              .n = shape.gallery,
              .k = shape.dim,
              .lda = shape.dim,
              .ldb = shape.dim,
              .ldc = shape.gallery,
              .transpose_b = true,
              .packed_b = true,
              .bfloat16 = shape.precision == Precision::kBfloat16}) {}

absl::StatusOr<TileProduct> TileProduct::Make(const TileShape& shape) {
  TileProduct product(shape);
  SHARDMAX_ASSIGN_OR_RETURN(const PackedLayout layout, product.matmul_.LayoutOfB(product.shape_));
  product.packed_bytes_ = layout.bytes;
  return product;
}

}  // namespace shardmax
