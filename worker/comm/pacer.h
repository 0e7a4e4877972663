// The pace of waits that poll.
#pragma once

#include <chrono>

namespace shardmax::internal {

// Paces a loop that polls: keeps the core for `busy`, giving way to others that want it, then sleeps for a twelfth of
// the time waited so far, at most half a millisecond. So a wait is at most about a tenth longer than it need be, and
// ranks that wait leave the cores to those that compute.
class Pacer {
 public:
  explicit Pacer(std::chrono::nanoseconds busy) : start_(std::chrono::steady_clock::now()), busy_(busy) {}

  void Pause();
  std::chrono::nanoseconds waited() const { return std::chrono::steady_clock::now() - start_; }

 private:
  std::chrono::steady_clock::time_point start_;
  std::chrono::nanoseconds busy_;
};

}  // namespace shardmax::internal
