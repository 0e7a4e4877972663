#include "worker/comm/pacer.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace shardmax::internal {

void Pacer::Pause() {
  const std::chrono::nanoseconds waited = this->waited();
  if (waited < busy_) {
    sched_yield();
    return;
  }
  constexpr std::chrono::nanoseconds kLongest = std::chrono::microseconds(500);
  std::this_thread::sleep_for(std::min(waited / 12, kLongest));
}

}  // namespace shardmax::internal
