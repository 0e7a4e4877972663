// Where the ranks serve trainers.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"

namespace shardmax {

// "HOST:PORT" of every rank, by rank. Collective.
absl::StatusOr<std::vector<std::string>> GatherEndpoints(Communicator& comm, const std::string& host, int port);

}  // namespace shardmax
