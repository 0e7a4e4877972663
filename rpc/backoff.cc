#include "rpc/backoff.h"

#include <algorithm>

namespace shardmax {

Backoff::Backoff(std::chrono::milliseconds first, std::chrono::milliseconds longest, uint64_t seed)
    : first_(std::max(first, std::chrono::milliseconds(1))),
      longest_(std::max(longest, first_)),
      next_(first_),
      random_(seed) {}

std::chrono::milliseconds Backoff::Next() {
  const std::chrono::milliseconds most = next_;
  next_ = std::min(2 * next_, longest_);
  return std::chrono::milliseconds(
      std::uniform_int_distribution<int64_t>((most.count() + 1) / 2, most.count())(random_));
}

}  // namespace shardmax
