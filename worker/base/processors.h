// Which processors of the machine a rank computes on.
#pragma once

#include <span>
#include <vector>

namespace shardmax {

// Ids of processors are less than this.
inline constexpr int kMaxProcessors = 1024;

// Ids of the processors that the calling thread may run on, ascending; empty where the system does not say.
std::vector<int> AllowedProcessors();

// What `index` of `sharers` takes of `allowed`, processors that all of them may use: a contiguous part, or nothing
// where the sharers are more. Requires 0 <= index < sharers.
std::vector<int> ShareOfProcessors(std::span<const int> allowed, int index, int sharers);

// Binds the calling thread to one processor for the life of this object. Where the system refuses, it stays unbound:
// that costs time, not correctness.
class ScopedPin {
 public:
  explicit ScopedPin(int processor);
  ~ScopedPin();
  ScopedPin(const ScopedPin&) = delete;
  ScopedPin& operator=(const ScopedPin&) = delete;

 private:
  std::vector<int> before_;  // Empty if nothing was changed.
};

}  // namespace shardmax
