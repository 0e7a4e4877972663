#include "client/cpp/retry.h"

#include <condition_variable>
#include <mutex>

namespace shardmax {

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
