// IEEE 754 binary16, read only.
#pragma once

#include <bit>
#include <cstdint>

namespace shardmax {

// The value of the half-precision number with these bits, exactly: subnormals, infinities and signed zeros included;
// a NaN stays a NaN. Does not depend on the thread's treatment of float32 subnormals.
inline float HalfToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  // 255 is float32's exponent of infinities and NaN; 112 is the difference of the two biases.
  const uint32_t wide_exponent = exponent == 0x1f ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | (wide_exponent << 23) | (mantissa << 13));
}

}  // namespace shardmax
