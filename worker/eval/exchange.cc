#include "worker/eval/exchange.h"

#include <algorithm>

#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/comm/verdict.h"

namespace shardmax {
namespace {

// Bounds the memory of all ranks' blocks together.
constexpr size_t kMaxCounts = size_t{1} << 20;

struct Vote {
  Verdict<1000> verdict;
  int32_t yes = 0;
};

}  // namespace

absl::Status SumCounts(Communicator& comm, std::span<int64_t> counts) {
  const auto ranks = static_cast<size_t>(comm.size());
  const size_t block = std::max<size_t>(kMaxCounts / ranks, 1);
  std::vector<int64_t> all;
  for (size_t first = 0; first < counts.size(); first += block) {
    const std::span<int64_t> mine = counts.subspan(first, std::min(block, counts.size() - first));
    all.resize(mine.size() * ranks);
    SHARDMAX_RETURN_IF_ERROR(comm.AllGather(std::as_bytes(mine), std::as_writable_bytes(std::span(all))));
    std::fill(mine.begin(), mine.end(), 0);
    for (size_t i = 0; i < all.size(); ++i) mine[i % mine.size()] += all[i];
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<double>> GatherParts(Communicator& comm, std::span<const double> mine, int64_t total) {
  const Range first = BalancedPart(total, 0, comm.size());  // No part is larger.
  std::vector<double> padded(mine.begin(), mine.end());
  padded.resize(static_cast<size_t>(first.count));
  std::vector<double> all(padded.size() * static_cast<size_t>(comm.size()));
  SHARDMAX_RETURN_IF_ERROR(comm.AllGather(std::as_bytes(std::span(padded)), std::as_writable_bytes(std::span(all))));
  std::vector<double> joined;
  joined.reserve(static_cast<size_t>(total));
  for (int rank = 0; rank < comm.size(); ++rank) {
    const auto begin = all.begin() + rank * first.count;
    joined.insert(joined.end(), begin, begin + BalancedPart(total, rank, comm.size()).count);
  }
  return joined;
}

absl::StatusOr<bool> AnyRank(Communicator& comm, const absl::Status& status, bool mine) {
  const Vote vote = {Verdict<1000>::Of(status), mine ? 1 : 0};
  std::vector<Vote> votes(static_cast<size_t>(comm.size()));
  SHARDMAX_RETURN_IF_ERROR(
      comm.AllGather(std::as_bytes(std::span(&vote, 1)), std::as_writable_bytes(std::span(votes))));
  bool any = false;
  for (int rank = 0; rank < comm.size(); ++rank) {
    SHARDMAX_RETURN_IF_ERROR(votes[rank].verdict.From(rank));
    any = any || votes[rank].yes != 0;
  }
  return any;
}

absl::Status AgreeOnFile(Communicator& comm, const std::string& file, const std::string& mine) {
  SHARDMAX_ASSIGN_OR_RETURN(const std::string first, BroadcastString(comm, mine, 0));
  absl::Status status;
  if (mine != first) {
    status = InvalidArgument("{} has {} here, but {} on rank 0: every rank must see the same files", file, mine, first);
  }
  return AgreeOk(comm, status);
}

}  // namespace shardmax
