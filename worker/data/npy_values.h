// Rows of .npy files as float32 features and as integers, whatever their dtype.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "worker/data/npy.h"

namespace shardmax {

// InvalidArgument unless `file` is float32 or float16 [n, D] with n and D at least 1 and D at most `max_dim`.
absl::Status CheckFloatMatrix(const NpyFile& file, int64_t max_dim);

// InvalidArgument unless the dtype of `file` is int32 or int64.
absl::Status CheckIntegers(const NpyFile& file);

// Copies `row` to `out` [D] as float32. Requires a float32 or float16 file.
void CopyFloatRow(const NpyFile& file, int64_t row, std::span<float> out);

// The value at (row, col). Requires an int32 or int64 file.
int64_t IntegerAt(const NpyFile& file, int64_t row, int64_t col = 0);

// Enough rows of features to tell two files apart.
inline constexpr int64_t kSampledRows = 256;

// What a file holds, in words that differ when it does: rows, dtype and a checksum of at most `max_rows` rows, evenly
// spread.
std::string NpyDigest(const NpyFile& file, int64_t max_rows);

}  // namespace shardmax
