// bfloat16 numbers: the upper half of a float32.
#pragma once

#include <bit>
#include <cstdint>

namespace shardmax {

inline float FromBfloat16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16U);
}

// The nearest bfloat16, ties to even. No NaN.
inline uint16_t RoundToNearestBfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U);
}

}  // namespace shardmax
