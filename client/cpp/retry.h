// When to try again, and how long to wait before.
#pragma once

#include <chrono>
#include <random>
#include <stop_token>

#include "absl/status/status.h"

namespace shardmax {

// Waits that double from the first to the longest, each up to a quarter shorter at random, so that clients that lost a
// server together do not come back together. Not thread-safe.
class Backoff {
 public:
  Backoff(std::chrono::milliseconds first, std::chrono::milliseconds longest);

  std::chrono::milliseconds Next();
  void Reset() { next_ = first_; }

 private:
  std::chrono::milliseconds first_;
  std::chrono::milliseconds longest_;
  std::chrono::milliseconds next_;
  std::minstd_rand random_{std::random_device()()};
};

// False as soon as a stop is requested.
bool SleepUnlessStopped(std::chrono::milliseconds duration, const std::stop_token& stop);

absl::Status StoppedByCaller();

}  // namespace shardmax
