// The nearest classes of each class: where its support vectors are.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "worker/base/aligned_buffer.h"
#include "worker/base/matrix_view.h"
#include "worker/base/shard_range.h"

namespace shardmax {

// Of the classes of one rank. Memory: 4 bytes for each of C_r k ids.
class NeighbourGraph {
 public:
  // With room for k = min(neighbours, num_classes - 1) neighbours of each class of `shard`; nothing is built yet.
  // ResourceExhausted, with the bytes.
  static absl::StatusOr<NeighbourGraph> Allocate(Range shard, int64_t num_classes, int64_t neighbours);

  Range shard() const { return shard_; }
  int64_t num_classes() const { return num_classes_; }  // C
  int64_t neighbours() const { return neighbours_; }    // k

  // Whether rows() holds a graph. Alike on every rank.
  bool built() const { return built_; }
  void SetBuilt(bool built) { built_ = built; }

  // The graph as checkpoints pass it: rows [n, k] of `classes` (global ids, inside the shard), each float having the
  // bits of an id. InvalidArgument: other classes or another width; DataLoss, naming the class: an id outside [0, C).
  absl::Status ReadBits(Range classes, MatrixView<float> rows) const;
  absl::Status WriteBits(Range classes, MatrixView<const float> rows);

  // As it is now. ResourceExhausted, with the bytes.
  absl::StatusOr<NeighbourGraph> Copy() const;

  // [C_r, k] global class ids, nearest first.
  MatrixView<int32_t> rows() { return {ids_.data(), shard_.count, neighbours_}; }
  std::span<const int32_t> Of(int64_t local_class) const {
    return ids_.span().subspan(static_cast<size_t>(local_class * neighbours_), static_cast<size_t>(neighbours_));
  }

 private:
  absl::Status CheckRows(Range classes, int64_t rows, int64_t cols) const;

  Range shard_;
  int64_t num_classes_ = 0;
  int64_t neighbours_ = 0;
  bool built_ = false;
  AlignedBuffer<int32_t> ids_;
};

}  // namespace shardmax
