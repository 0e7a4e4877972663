// safetensors files for tests, sound or not.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

namespace shardmax {

// Header length, header and data as they are given.
inline std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + data;
}

// {"weight":{"dtype":…,"shape":…,"data_offsets":…}}
inline std::string OneTensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"weight":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

}  // namespace shardmax
