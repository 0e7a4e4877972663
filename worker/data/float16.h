// IEEE 754 binary16.
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

// The bits of the half-precision number nearest to `value`, ties to the even one; from 65520 on an infinity. A NaN
// stays a NaN.
inline uint16_t FloatToHalf(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;               // 65520
  if (magnitude < 0x38800000u) {                                     // 2^-14: subnormals are whole multiples of 2^-24.
    const float scaled = std::bit_cast<float>(magnitude) * 0x1p24f;  // Exact, and below 1024.
    // Adding 2^23 leaves no bits for a fraction: the processor rounds it to even.
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(scaled + 0x1p23f) & 0x7ffu);
  }
  // The biases differ by 112; the rounding may carry into the exponent, which is right.
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return sign | static_cast<uint16_t>((rounded - (112u << 23)) >> 13);
}

}  // namespace shardmax
