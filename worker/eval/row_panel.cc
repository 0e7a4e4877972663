#include "worker/eval/row_panel.h"

#include <algorithm>
#include <atomic>

#include "worker/base/status.h"
#include "worker/engine/cpu/tile_kernels.h"

namespace shardmax {
namespace {

constexpr int64_t kAlignment = 64;

}  // namespace

absl::StatusOr<RowPanel> RowPanel::Make(const TileShape& shape, int64_t tiles, int64_t tile_rows,
                                        int64_t packed_bytes) {
  RowPanel panel(shape, tile_rows, packed_bytes > 0);
  const int64_t bytes = packed_bytes > 0 ? packed_bytes : tile_rows * shape.dim * shape.item_bytes();
  panel.tile_bytes_ = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  SHARDMAX_ASSIGN_OR_RETURN(panel.data_, AlignedBuffer<std::byte>::Allocate(tiles * panel.tile_bytes_));
  return panel;
}

absl::Status RowPanel::FillTile(TileProduct& product, const RowList& list, int64_t tile, std::byte* out) const {
  std::vector<float> floats(static_cast<size_t>(tile_rows_ * shape_.dim));
  for (int64_t i = 0; i < tile_rows_ && tile * tile_rows_ + i < list.size(); ++i) {
    const std::span<float> row(floats.data() + i * shape_.dim, static_cast<size_t>(shape_.dim));
    SHARDMAX_RETURN_IF_ERROR(list.embeddings->ReadDirection(list.rows[tile * tile_rows_ + i], row));
  }
  std::vector<uint16_t> halves;
  const void* rows = floats.data();
  if (shape_.precision == Precision::kBfloat16) {
    halves.resize(floats.size());
    ToBfloat16(floats.data(), static_cast<int64_t>(floats.size()), halves.data());
    rows = halves.data();
  }
  if (packed_) return product.Pack(rows, out);
  const auto* bytes = static_cast<const std::byte*>(rows);
  std::copy_n(bytes, tile_rows_ * shape_.dim * shape_.item_bytes(), out);
  return absl::OkStatus();
}

absl::Status RowPanel::Fill(ThreadPool& pool, std::span<TileProduct> products, const RowList& list, Range tiles) {
  std::vector<absl::Status> statuses(static_cast<size_t>(tiles.count));
  std::atomic<int64_t> next = 0;
  pool.Run([&](int thread) {
    for (int64_t i = next++; i < tiles.count; i = next++) {
      statuses[i] = FillTile(products[thread], list, tiles.first + i, data_.data() + i * tile_bytes_);
    }
  });
  for (const absl::Status& status : statuses) SHARDMAX_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

}  // namespace shardmax
