// What the ranks of an evaluation tell each other.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"

namespace shardmax {

// counts[i] becomes the sum over ranks of counts[i]. Collective. Whole numbers, so the order does not matter.
absl::Status SumCounts(Communicator& comm, std::span<int64_t> counts);

// The values of all ranks, joined in rank order: `mine` is BalancedPart(total, rank, N) of them. Collective.
absl::StatusOr<std::vector<double>> GatherParts(Communicator& comm, std::span<const double> mine, int64_t total);

// Whether any rank says so. Collective; an error of any rank comes back on all, as of AgreeOk.
absl::StatusOr<bool> AnyRank(Communicator& comm, const absl::Status& status, bool mine);

// OK if `mine` is the same on every rank, else InvalidArgument on all: "FILE has MINE here, but … on rank 0".
// Collective.
absl::Status AgreeOnFile(Communicator& comm, const std::string& file, const std::string& mine);

}  // namespace shardmax
