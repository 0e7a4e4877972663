// Waiting for the next try, which the caller may cut short.
#pragma once

#include <chrono>
#include <stop_token>

#include "absl/status/status.h"

namespace shardmax {

// False as soon as a stop is requested.
bool SleepUnlessStopped(std::chrono::milliseconds duration, const std::stop_token& stop);

absl::Status StoppedByCaller();

}  // namespace shardmax
