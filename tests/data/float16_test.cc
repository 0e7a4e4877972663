#include "worker/data/float16.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace shardmax {
namespace {

TEST(HalfToFloat, KnowsTheLandmarks) {
  EXPECT_EQ(HalfToFloat(0x3c00), 1.0f);
  EXPECT_EQ(HalfToFloat(0xc000), -2.0f);
  EXPECT_EQ(HalfToFloat(0x7bff), 65504.0f);
  EXPECT_EQ(HalfToFloat(0x0400), 0x1p-14f);  // The smallest normal number.
  EXPECT_EQ(HalfToFloat(0x0001), 0x1p-24f);  // The smallest subnormal one.
  EXPECT_EQ(HalfToFloat(0x83ff), -1023 * 0x1p-24f);
  EXPECT_EQ(HalfToFloat(0x7c00), std::numeric_limits<float>::infinity());
  EXPECT_EQ(HalfToFloat(0xfc00), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(HalfToFloat(0x7c01)));
  EXPECT_TRUE(std::isnan(HalfToFloat(0xfe00)));
  EXPECT_TRUE(std::signbit(HalfToFloat(0x8000)));
  EXPECT_FALSE(std::signbit(HalfToFloat(0x0000)));
}

TEST(HalfToFloat, AgreesWithTheDefinitionForEveryPattern) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const int exponent = static_cast<int>(bits >> 10 & 0x1f);
    const double mantissa = bits & 0x3ff;
    double expected = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31) expected = mantissa == 0 ? INFINITY : NAN;
    if ((bits & 0x8000) != 0) expected = -expected;
    const double value = HalfToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(value)) << "bits " << bits;
    } else {
      EXPECT_EQ(value, expected) << "bits " << bits;
    }
  }
}

}  // namespace
}  // namespace shardmax
