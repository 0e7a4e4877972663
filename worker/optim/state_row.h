// A row of optimizer state in memory: float32, or bfloat16 that was rounded stochastically.
//
// Rounded to the nearest, a momentum of 8 bits would stop to move where what a step adds is less than half of its last
// bit. Rounded up or down at random, with chances that keep the mean, nothing is lost on average. The chances come from
// a counter, not from a generator: noise is a function of the job's seed, the step, the class and the column, so that a
// run repeats bit for bit on any number of ranks and threads, and after a resume.
#pragma once

#include <bit>
#include <cstdint>

#include "worker/base/bfloat16.h"

namespace shardmax {

// The n values of one class in one tensor of the state: in one of the two, or in none.
struct StateRow {
  float* float32 = nullptr;
  uint16_t* bfloat16 = nullptr;

  bool empty() const { return float32 == nullptr && bfloat16 == nullptr; }
};

// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
inline uint64_t Mix64(uint64_t z) {
  z += 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31U);
}

// Noise of a step, of a row in it, and of an element of that row: 32 bits, of which the first tensor of the state takes
// the lower half and the second the upper. Engines that work on vectors repeat ElementNoise for them.
inline uint64_t StepNoise(uint32_t seed, int64_t step) {
  return Mix64(Mix64(seed) ^ static_cast<uint64_t>(step));
}
inline uint32_t RowNoise(uint64_t step_noise, int64_t global_class_id) {
  return static_cast<uint32_t>(Mix64(step_noise ^ static_cast<uint64_t>(global_class_id)) >> 32U);
}
inline constexpr uint32_t kColumnFactor = 0x9E3779B9U;
inline constexpr uint32_t kNoiseFactor1 = 0x7FEB352DU;
inline constexpr uint32_t kNoiseFactor2 = 0x846CA68BU;
inline uint32_t ElementNoise(uint32_t row_noise, uint32_t column) {
  uint32_t x = row_noise + column * kColumnFactor;
  x = (x ^ (x >> 16U)) * kNoiseFactor1;
  x = (x ^ (x >> 15U)) * kNoiseFactor2;
  return x ^ (x >> 16U);
}

// The bfloat16 below or above `value` in magnitude: away from zero with the chance that keeps the mean. Values that are
// bfloat16 stay. `noise` is below 2^16. No NaN: some would become numbers (their weight is NaN then, and found).
inline uint16_t RoundStochastically(float value, uint32_t noise) {
  return static_cast<uint16_t>((std::bit_cast<uint32_t>(value) + noise) >> 16U);
}

}  // namespace shardmax
