// A pseudo-random order of [0, n) that needs no memory.
#pragma once

#include <array>
#include <cstdint>

namespace shardmax {

// A bijection of [0, n) chosen by (seed, epoch), evaluated one index at a time. The order is part of what makes a run
// repeatable: it never changes between versions.
//
// How: a Feistel network of 8 rounds on the smallest power of two that is at least n (and at least 64, as a network on
// a few bits reaches only few permutations); results outside [0, n) are fed back until one falls inside, which keeps
// the map a bijection and takes less than two turns on average (32 for n = 2).
class Permutation {
 public:
  // Requires n >= 1.
  Permutation(int64_t n, uint32_t seed, int64_t epoch);

  // Where index i goes. Requires 0 <= i < n.
  int64_t operator()(int64_t i) const;

 private:
  static constexpr int kRounds = 8;
  uint64_t Scramble(uint64_t x) const;

  uint64_t n_;
  int low_bits_;
  uint64_t low_mask_;
  uint64_t high_mask_;
  std::array<uint64_t, kRounds> keys_;
};

}  // namespace shardmax
