#include "worker/live/wire.h"

#include <bit>
#include <cstring>

#include "worker/data/float16.h"

namespace shardmax {
namespace {

static_assert(std::endian::native == std::endian::little, "values travel as they are in memory");

template <typename Narrow>
void DecodeEach(std::string_view bytes, std::span<float> values, const Narrow& decode) {
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    values[i] = decode(bits);
  }
}

template <typename Narrow>
void EncodeEach(std::span<const float> values, char* bytes, const Narrow& encode) {
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = encode(values[i]);
    std::memcpy(bytes + 2 * i, &bits, 2);
  }
}

float Bfloat16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

uint16_t FloatToBfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  // The quiet bit, so that a NaN whose payload is cut off stays one.
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace

size_t WireBytes(v1::WireType type) {
  switch (type) {
    case v1::WIRE_FLOAT32:
      return 4;
    case v1::WIRE_FLOAT16:
    case v1::WIRE_BFLOAT16:
      return 2;
    default:
      return 0;
  }
}

void DecodeValues(std::string_view bytes, v1::WireType type, std::span<float> values) {
  if (values.empty()) return;
  if (type == v1::WIRE_FLOAT32) {
    std::memcpy(values.data(), bytes.data(), values.size_bytes());
  } else if (type == v1::WIRE_FLOAT16) {
    DecodeEach(bytes, values, HalfToFloat);
  } else {
    DecodeEach(bytes, values, Bfloat16ToFloat);
  }
}

std::string EncodeValues(std::span<const float> values, v1::WireType type) {
  if (type == v1::WIRE_FLOAT32) return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
  std::string bytes(2 * values.size(), '\0');
  if (type == v1::WIRE_FLOAT16) {
    EncodeEach(values, bytes.data(), FloatToHalf);
  } else {
    EncodeEach(values, bytes.data(), FloatToBfloat16);
  }
  return bytes;
}

}  // namespace shardmax
