// JSON text to and from a JobSpec, with error messages for people.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "shardmax/v1/job.pb.h"

namespace shardmax {

// Fills `spec` (empty before) from strict JSON. InvalidArgument: with line and column where it is not JSON, with the
// field path where it is not a JobSpec. Requires UTF-8.
absl::Status ParseJson(const std::string& text, shardmax::v1::JobSpec* spec);

}  // namespace shardmax
