#include "worker/head/neighbour_lists.h"

#include <algorithm>

#include "worker/base/shard_range.h"
#include "worker/base/status.h"

namespace shardmax {

void DistinctLabels(std::span<const int32_t> labels, std::vector<int32_t>& distinct) {
  distinct.assign(labels.begin(), labels.end());
  std::ranges::sort(distinct);
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  if (!distinct.empty() && distinct.front() < 0) distinct.erase(distinct.begin());
}

absl::Status NeighbourLists::Gather(Communicator& comm, const NeighbourGraph& graph, std::span<const int32_t> labels) {
  neighbours_ = graph.neighbours();
  DistinctLabels(labels, labels_);
  // Ranks own ascending classes, so each owns a run of the labels.
  std::vector<size_t> first_of_rank;
  size_t most = 0;
  for (int rank = 0; rank < comm.size(); ++rank) {
    SHARDMAX_ASSIGN_OR_RETURN(const Range shard, ShardOfRank(graph.num_classes(), rank, comm.size()));
    const auto begin = std::lower_bound(labels_.begin(), labels_.end(), shard.first);
    const auto end = std::lower_bound(begin, labels_.end(), shard.end());
    first_of_rank.push_back(static_cast<size_t>(begin - labels_.begin()));
    most = std::max(most, static_cast<size_t>(end - begin));
  }
  first_of_rank.push_back(labels_.size());
  places_.resize(labels_.size());
  for (size_t rank = 0; rank + 1 < first_of_rank.size(); ++rank) {
    for (size_t i = first_of_rank[rank]; i < first_of_rank[rank + 1]; ++i) {
      places_[i] = rank * most + (i - first_of_rank[rank]);
    }
  }
  const auto rank = static_cast<size_t>(comm.rank());
  mine_.assign(most * static_cast<size_t>(neighbours_), -1);
  for (size_t i = first_of_rank[rank]; i < first_of_rank[rank + 1]; ++i) {
    std::ranges::copy(graph.Of(labels_[i] - graph.shard().first),
                      mine_.begin() + static_cast<int64_t>(i - first_of_rank[rank]) * neighbours_);
  }
  lists_.resize(mine_.size() * static_cast<size_t>(comm.size()));
  return comm.AllGather(std::as_bytes(std::span(mine_)), std::as_writable_bytes(std::span(lists_)));
}

}  // namespace shardmax
