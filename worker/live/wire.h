// Values of the data plane as bytes: little-endian, row-major, one of WireType.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "shardmax/v1/head.pb.h"

namespace shardmax {

// Bytes of one value; 0 for what is no type.
size_t WireBytes(shardmax::v1::WireType type);

// Fills `values` from `bytes`, which has values.size() WireBytes(type). Exact; a NaN stays a NaN.
void DecodeValues(std::string_view bytes, shardmax::v1::WireType type, std::span<float> values);

// `values` rounded to the nearest value of `type`, ties to the even one; what is too large becomes infinite.
std::string EncodeValues(std::span<const float> values, shardmax::v1::WireType type);

}  // namespace shardmax
