#include "worker/data/permutation.h"

#include <algorithm>
#include <bit>

namespace shardmax {
namespace {

constexpr int kMinBits = 6;
constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;

// The finaliser of SplitMix64: every input bit flips every output bit with probability near one half.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

Permutation::Permutation(int64_t n, uint32_t seed, int64_t epoch) : n_(static_cast<uint64_t>(n)) {
  const int bits = std::max(kMinBits, static_cast<int>(std::bit_width(n_ - 1)));
  low_bits_ = bits / 2;
  low_mask_ = (uint64_t{1} << low_bits_) - 1;
  high_mask_ = (uint64_t{1} << (bits - low_bits_)) - 1;
  uint64_t state = Mix(Mix(seed + kGolden) + static_cast<uint64_t>(epoch) + kGolden);
  for (uint64_t& key : keys_) key = Mix(state += kGolden);
}

uint64_t Permutation::Scramble(uint64_t x) const {
  uint64_t low = x & low_mask_;
  uint64_t high = x >> low_bits_;
  for (int round = 0; round < kRounds; round += 2) {
    high ^= Mix(low + keys_[round]) & high_mask_;
    low ^= Mix(high + keys_[round + 1]) & low_mask_;
  }
  return (high << low_bits_) | low;
}

int64_t Permutation::operator()(int64_t i) const {
  auto x = static_cast<uint64_t>(i);
  do {
    x = Scramble(x);
  } while (x >= n_);
  return static_cast<int64_t>(x);
}

}  // namespace shardmax
