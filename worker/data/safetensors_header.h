// The JSON header of a safetensors file, as text.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace shardmax {

struct SafetensorsTensor {
  std::string dtype;           // As in the file: "F32", "BF16", "I64", …
  std::vector<int64_t> shape;  // Empty for a scalar.
  int64_t offset = 0;          // Of the first byte, from the begin of the data section.
  int64_t bytes = 0;           // Product of the shape times the size of the dtype.
};

using SafetensorsTensors = std::map<std::string, SafetensorsTensor>;

// Parses the header of a file whose data section is `data_bytes` long. InvalidArgument: not JSON of the form that the
// format prescribes, a key twice, an unknown dtype, more than 32 dimensions, a size that is not shape times dtype, or
// tensors that overlap, leave gaps or do not end with the data. `__metadata__` (text to text) is accepted and dropped.
absl::StatusOr<SafetensorsTensors> ParseSafetensorsHeader(std::string_view json, int64_t data_bytes);

// "F32 [3, 4]".
std::string Describe(const SafetensorsTensor& tensor);

}  // namespace shardmax
