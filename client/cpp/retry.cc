#include "client/cpp/retry.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>

namespace shardmax {

Backoff::Backoff(std::chrono::milliseconds first, std::chrono::milliseconds longest)
    : first_(std::max(first, std::chrono::milliseconds(1))), longest_(std::max(longest, first_)), next_(first_) {}

std::chrono::milliseconds Backoff::Next() {
  const std::chrono::milliseconds wait = next_;
  next_ = std::min(next_ * 2, longest_);
  std::uniform_int_distribution<int64_t> shorter(0, wait.count() / 4);
  return wait - std::chrono::milliseconds(shorter(random_));
}

bool SleepUnlessStopped(std::chrono::milliseconds duration, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock<std::mutex> lock(mutex);
  never.wait_for(lock, stop, duration, [] { return false; });
  return !stop.stop_requested();
}

absl::Status StoppedByCaller() {
  return absl::CancelledError("stopped by the caller");
}

}  // namespace shardmax
