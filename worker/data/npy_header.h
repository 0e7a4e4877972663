// The text header of an .npy file: a Python dict literal.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

namespace shardmax {

// Element types that shardmax reads, all little-endian.
enum class NpyType { kFloat32, kFloat16, kInt32, kInt64 };

// "float32", "float16", "int32", "int64".
std::string_view NpyTypeName(NpyType dtype);
int64_t NpyItemBytes(NpyType dtype);

struct NpyHeader {
  NpyType dtype = NpyType::kFloat32;
  int ndim = 0;                           // 1 or 2.
  std::array<int64_t, 2> shape = {0, 1};  // shape[1] is 1 when ndim is 1.
};

// Parses the dict, e.g. "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }". Any order of keys, any white
// space, either quote, a trailing comma or none, and the long integers of Python 2 (3L). InvalidArgument: another
// syntax, a key that is missing, unknown or double, Fortran order, big-endian, another dtype, 0 or more than 2
// dimensions, a dimension beyond int64. Allocates nothing but the message.
absl::StatusOr<NpyHeader> ParseNpyHeader(std::string_view text);

}  // namespace shardmax
