// The job that --job names.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "shardmax/v1/job.pb.h"
#include "worker/comm/communicator.h"

namespace shardmax {

// Reads and resolves the spec on rank 0, and gives it to all. Collective. Errors list all mistakes.
absl::StatusOr<shardmax::v1::JobSpec> ShareJobSpec(Communicator& comm, const std::string& path);

}  // namespace shardmax
