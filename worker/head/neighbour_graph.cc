#include "worker/head/neighbour_graph.h"

#include <algorithm>
#include <cstring>

#include "worker/base/status.h"

namespace shardmax {

absl::StatusOr<NeighbourGraph> NeighbourGraph::Allocate(Range shard, int64_t num_classes, int64_t neighbours) {
  NeighbourGraph graph;
  graph.shard_ = shard;
  graph.num_classes_ = num_classes;
  graph.neighbours_ = std::min(neighbours, num_classes - 1);
  SHARDMAX_ASSIGN_OR_RETURN(graph.ids_, AlignedBuffer<int32_t>::Allocate(shard.count * graph.neighbours_));
  return graph;
}

absl::StatusOr<NeighbourGraph> NeighbourGraph::Copy() const {
  SHARDMAX_ASSIGN_OR_RETURN(NeighbourGraph copy, Allocate(shard_, num_classes_, neighbours_));
  std::ranges::copy(ids_.span(), copy.ids_.span().begin());
  copy.built_ = built_;
  return copy;
}

absl::Status NeighbourGraph::CheckRows(Range classes, int64_t rows, int64_t cols) const {
  if (classes.first < shard_.first || classes.end() > shard_.end() || classes.count != rows || cols != neighbours_) {
    return InvalidArgument("neighbours of {} classes from {} on as [{}, {}]: the shard has [{}, {}) with {} each",
                           classes.count, classes.first, rows, cols, shard_.first, shard_.end(), neighbours_);
  }
  return absl::OkStatus();
}

absl::Status NeighbourGraph::ReadBits(Range classes, MatrixView<float> rows) const {
  SHARDMAX_RETURN_IF_ERROR(CheckRows(classes, rows.rows, rows.cols));
  const int32_t* from = ids_.data() + (classes.first - shard_.first) * neighbours_;
  std::memcpy(rows.data, from, rows.flat().size_bytes());
  return absl::OkStatus();
}

absl::Status NeighbourGraph::WriteBits(Range classes, MatrixView<const float> bits) {
  SHARDMAX_RETURN_IF_ERROR(CheckRows(classes, bits.rows, bits.cols));
  const MatrixView<int32_t> ids = rows().slice(classes.first - shard_.first, classes.count);
  std::memcpy(ids.data, bits.data, bits.flat().size_bytes());
  for (int64_t k = 0; k < ids.rows; ++k) {
    for (const int32_t id : ids.row(k)) {
      if (id >= 0 && id < num_classes_) continue;
      return Error(absl::StatusCode::kDataLoss, "a neighbour of class {} is {}: allowed is a class in [0, {})",
                   classes.first + k, id, num_classes_);
    }
  }
  return absl::OkStatus();
}

}  // namespace shardmax
