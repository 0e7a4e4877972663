// The neighbours of the labels of a batch, on every rank.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "worker/comm/communicator.h"
#include "worker/head/neighbour_graph.h"

namespace shardmax {

// The owner of a label knows its neighbours; which of them take part depends on those of all labels. So they travel:
// one all-gather, of 4 k bytes for each label of the rank that owns most of the batch's.
class NeighbourLists {
 public:
  // `labels` are those of the global batch, equal on every rank; `graph` is built, and of this rank. Collective.
  absl::Status Gather(Communicator& comm, const NeighbourGraph& graph, std::span<const int32_t> labels);

  // What Gather sends for such a batch.
  static int64_t BlockBytes(int64_t labels_of_a_rank, int64_t neighbours) { return 4 * labels_of_a_rank * neighbours; }

  // The labels of the last Gather, each once, ascending, and k neighbours of each, nearest first.
  std::span<const int32_t> labels() const { return labels_; }
  int64_t neighbours() const { return neighbours_; }
  std::span<const int32_t> Of(size_t label_index) const {
    return std::span<const int32_t>(lists_).subspan(places_[label_index] * static_cast<size_t>(neighbours_),
                                                    static_cast<size_t>(neighbours_));
  }

 private:
  int64_t neighbours_ = 0;
  std::vector<int32_t> labels_;
  std::vector<size_t> places_;  // Of each label's list.
  std::vector<int32_t> mine_;
  std::vector<int32_t> lists_;  // [N blocks of lists]
};

// The labels that are not -1, each once, ascending.
void DistinctLabels(std::span<const int32_t> labels, std::vector<int32_t>& distinct);

}  // namespace shardmax
