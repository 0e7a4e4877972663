#include "worker/live/wire.h"

#include <gmock/gmock.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "worker/data/float16.h"

namespace shardmax {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

uint16_t Bits(const std::string& bytes) {
  uint16_t bits = 0;
  std::memcpy(&bits, bytes.data(), 2);
  return bits;
}

TEST(Wire, EveryHalfComesBackAsItIs) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = HalfToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value)))) << bits;
    } else {
      ASSERT_EQ(FloatToHalf(value), bits) << value;
    }
  }
}

TEST(Wire, HalvesAreTheNearestAndTiesAreEven) {
  // Between two neighbours, just below the middle, and just above it; for every exponent.
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = HalfToFloat(static_cast<uint16_t>(bits));
    const float high = HalfToFloat(static_cast<uint16_t>(bits + 1));
    const float middle = low + (high - low) / 2;  // Exact.
    ASSERT_EQ(FloatToHalf(middle), bits % 2 == 0 ? bits : bits + 1) << middle;
    ASSERT_EQ(FloatToHalf(std::nextafterf(middle, 0)), bits);
    ASSERT_EQ(FloatToHalf(std::nextafterf(middle, kInfinity)), bits + 1);
    ASSERT_EQ(FloatToHalf(-middle), 0x8000 | (bits % 2 == 0 ? bits : bits + 1));
  }
  EXPECT_EQ(FloatToHalf(65519.996F), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0F), 0x7c00);
  EXPECT_EQ(FloatToHalf(-1e30F), 0xfc00);
  EXPECT_EQ(FloatToHalf(1e-30F), 0);
}

TEST(Wire, Bfloat16sAreTheNearestAndTiesAreEven) {
  const auto encode = [](float value) { return Bits(EncodeValues({&value, 1}, v1::WIRE_BFLOAT16)); };
  EXPECT_EQ(encode(1.0F), 0x3f80);
  EXPECT_EQ(encode(std::bit_cast<float>(0x3f808000U)), 0x3f80);
  EXPECT_EQ(encode(std::bit_cast<float>(0x3f818000U)), 0x3f82);
  EXPECT_EQ(encode(std::bit_cast<float>(0x3f808001U)), 0x3f81);
  EXPECT_EQ(encode(-kInfinity), 0xff80);
  EXPECT_EQ(encode(std::numeric_limits<float>::max()), 0x7f80);
  // A NaN with nothing in the upper half of its payload.
  EXPECT_EQ(encode(std::bit_cast<float>(0x7f800001U)) & 0x7fc0, 0x7fc0);
}

TEST(Wire, ValuesComeBack) {
  const std::vector<float> values = {0, -0.0F, 1.5F, -65504, 0x1p-14F, 0.25F};
  for (const v1::WireType type : {v1::WIRE_FLOAT32, v1::WIRE_FLOAT16, v1::WIRE_BFLOAT16}) {
    const std::string bytes = EncodeValues(values, type);
    ASSERT_EQ(bytes.size(), values.size() * WireBytes(type));
    std::vector<float> decoded(values.size());
    DecodeValues(bytes, type, decoded);
    if (type == v1::WIRE_BFLOAT16) decoded[3] = values[3];  // It has too many digits.
    EXPECT_EQ(decoded, values);
  }
  EXPECT_EQ(WireBytes(v1::WIRE_TYPE_UNSPECIFIED), 0U);
}

}  // namespace
}  // namespace shardmax
