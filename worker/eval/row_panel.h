// Directions of many rows in the form that products take.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/base/aligned_buffer.h"
#include "worker/base/thread_pool.h"
#include "worker/eval/embeddings.h"
#include "worker/eval/tile_product.h"

namespace shardmax {

// Rows of one file, in the order in which they are scored. Borrows.
struct RowList {
  const Embeddings* embeddings = nullptr;
  std::span<const int64_t> rows;

  int64_t size() const { return static_cast<int64_t>(rows.size()); }
};

// Tiles of directions, float32 or bfloat16, rows beyond the list zero. Filled again and again.
class RowPanel {
 public:
  // Room for `tiles` tiles of `tile_rows` rows. `packed_bytes` > 0: each tile is packed, as a gallery tile is.
  static absl::StatusOr<RowPanel> Make(const TileShape& shape, int64_t tiles, int64_t tile_rows, int64_t packed_bytes);

  // Fills the panel with the `tiles` tiles of `list` from `first_tile` on; tile t is the rows [t T, (t + 1) T) of it.
  // products[i] belongs to thread i of `pool` and packs. The error of the first tile that has one.
  absl::Status Fill(ThreadPool& pool, std::span<TileProduct> products, const RowList& list, Range tiles);

  // Of tile `index` of those that were filled.
  const std::byte* tile(int64_t index) const { return data_.data() + index * tile_bytes_; }

 private:
  RowPanel(const TileShape& shape, int64_t tile_rows, bool packed)
      : shape_(shape), tile_rows_(tile_rows), packed_(packed) {}
  absl::Status FillTile(TileProduct& product, const RowList& list, int64_t tile, std::byte* out) const;

  TileShape shape_;
  int64_t tile_rows_;
  bool packed_;
  int64_t tile_bytes_ = 0;
  AlignedBuffer<std::byte> data_;
};

}  // namespace shardmax
