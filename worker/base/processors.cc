#include "worker/base/processors.h"

#include <sched.h>

#include "worker/base/shard_range.h"

namespace shardmax {
namespace {

static_assert(kMaxProcessors == CPU_SETSIZE);

bool Bind(std::span<const int> processors) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int processor : processors) CPU_SET(static_cast<size_t>(processor), &set);
  return sched_setaffinity(0, sizeof(set), &set) == 0;
}

}  // namespace

std::vector<int> AllowedProcessors() {
  std::vector<int> processors;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return processors;
  for (int i = 0; i < kMaxProcessors; ++i) {
    if (CPU_ISSET(static_cast<size_t>(i), &set)) processors.push_back(i);
  }
  return processors;
}

std::vector<int> ShareOfProcessors(std::span<const int> allowed, int index, int sharers) {
  if (sharers > static_cast<int>(allowed.size())) return {};
  const Range mine = BalancedPart(static_cast<int64_t>(allowed.size()), index, sharers);
  return {allowed.begin() + mine.first, allowed.begin() + mine.end()};
}

ScopedPin::ScopedPin(int processor) : before_(AllowedProcessors()) {
  const int one[] = {processor};
  if (!before_.empty() && !Bind(one)) before_.clear();
}

ScopedPin::~ScopedPin() {
  if (!before_.empty()) Bind(before_);
}

}  // namespace shardmax
