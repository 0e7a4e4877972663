// The scores of a tile of probes with a tile of gallery rows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/engine/cpu/matmul.h"

namespace shardmax {

struct TileShape {
  int64_t probes = 0;
  int64_t gallery = 0;
  int64_t dim = 0;
  Precision precision = Precision::kFloat32;

  int64_t item_bytes() const { return precision == Precision::kFloat32 ? 4 : 2; }
};

// One fixed shape, so that the score of two rows has the same bits wherever they meet. Operands are float32, or
// bfloat16 (uint16_t); scores are float32. Runs on the calling thread alone; one thread uses one object.
class TileProduct {
 public:
  // Internal, with the shape: oneDNN refused.
  static absl::StatusOr<TileProduct> Make(const TileShape& shape);

  // Of a gallery tile in the layout that the product likes.
  int64_t packed_bytes() const { return packed_bytes_; }

  // Rows [gallery, dim] to `packed` [packed_bytes], aligned to 64 bytes.
  absl::Status Pack(const void* rows, std::byte* packed) { return matmul_.PackB(shape_, rows, packed); }

  // scores [probes, gallery] = probes [probes, dim] times the transpose of the rows that were packed.
  absl::Status Run(const void* probes, const std::byte* packed, float* scores) {
    return matmul_.Run(shape_, probes, packed, scores);
  }

 private:
  explicit TileProduct(const TileShape& shape);

  MatMulShape shape_;
  MatMul matmul_;
  int64_t packed_bytes_ = 0;
};

}  // namespace shardmax
