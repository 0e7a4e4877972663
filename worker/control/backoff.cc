#include "worker/control/backoff.h"

#include <algorithm>

namespace shardmax {

std::chrono::milliseconds Backoff::Next() {
  const std::chrono::milliseconds most = next_;
  next_ = std::min(2 * next_, longest_);
  return std::chrono::milliseconds(
      std::uniform_int_distribution<int64_t>((most.count() + 1) / 2, most.count())(random_));
}

}  // namespace shardmax
