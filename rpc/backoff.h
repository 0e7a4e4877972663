// How long to wait before the next try.
#pragma once

#include <chrono>
#include <cstdint>
#include <random>

namespace shardmax {

// Waits that double from `first` to `longest`, each drawn between half of it and the whole, so that the clients and
// pools of a server that comes back do not all knock at once. Not thread-safe.
class Backoff {
 public:
  // `first` is at least 1 ms, `longest` at least `first`: less is taken for that. Equal seeds draw equal waits.
  Backoff(std::chrono::milliseconds first, std::chrono::milliseconds longest, uint64_t seed = std::random_device()());

  // The wait after one more failure.
  std::chrono::milliseconds Next();

  // After a success.
  void Reset() { next_ = first_; }

 private:
  std::chrono::milliseconds first_;
  std::chrono::milliseconds longest_;
  std::chrono::milliseconds next_;
  std::mt19937_64 random_;
};

}  // namespace shardmax
