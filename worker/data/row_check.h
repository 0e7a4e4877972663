// What a row must be so that its direction x / |x| exists.
#pragma once

#include <span>

#include "absl/status/status.h"

namespace shardmax {

// OK if every value is finite and the length is a normal float32. InvalidArgument says what is wrong, without naming
// the row: "column 3 is nan: every value must be finite".
absl::Status CheckDirection(std::span<const float> row);

}  // namespace shardmax
