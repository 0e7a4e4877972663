#include "worker/data/npy_values.h"

#include <algorithm>
#include <cstring>

#include "worker/base/status.h"
#include "worker/data/checksum.h"
#include "worker/data/float16.h"

namespace shardmax {

absl::Status CheckFloatMatrix(const NpyFile& file, int64_t max_dim) {
  if (file.dtype() != NpyType::kFloat32 && file.dtype() != NpyType::kFloat16) {
    return InvalidArgument("dtype is {}, float32 or float16 is needed", NpyTypeName(file.dtype()));
  }
  if (file.ndim() != 2) return InvalidArgument("has shape [{}], [n, D] is needed", file.rows());
  if (file.rows() == 0) return InvalidArgument("has no rows");
  if (file.cols() == 0 || file.cols() > max_dim) {
    return InvalidArgument("has shape [{}, {}], [n, D] with D from 1 to {} is needed", file.rows(), file.cols(),
                           max_dim);
  }
  return absl::OkStatus();
}

absl::Status CheckIntegers(const NpyFile& file) {
  if (file.dtype() == NpyType::kInt32 || file.dtype() == NpyType::kInt64) return absl::OkStatus();
  return InvalidArgument("dtype is {}, int32 or int64 is needed", NpyTypeName(file.dtype()));
}

void CopyFloatRow(const NpyFile& file, int64_t row, std::span<float> out) {
  const std::byte* source = file.row(row);
  if (file.dtype() == NpyType::kFloat32) {
    std::memcpy(out.data(), source, out.size_bytes());
    return;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, source + i * sizeof(bits), sizeof(bits));
    out[i] = HalfToFloat(bits);
  }
}

int64_t IntegerAt(const NpyFile& file, int64_t row, int64_t col) {
  const std::byte* source = file.row(row) + col * NpyItemBytes(file.dtype());
  if (file.dtype() == NpyType::kInt64) {
    int64_t value = 0;
    std::memcpy(&value, source, sizeof(value));
    return value;
  }
  int32_t value = 0;
  std::memcpy(&value, source, sizeof(value));
  return value;
}

std::string NpyDigest(const NpyFile& file, int64_t max_rows) {
  Checksum checksum;
  const int64_t count = std::min(max_rows, file.rows());
  for (int64_t i = 0; i < count; ++i) {
    checksum.Update(
        {file.row(count == file.rows() ? i : i * file.rows() / count), static_cast<size_t>(file.row_bytes())});
  }
  return fmt::format("{} rows of {}, checksum {}", file.rows(), NpyTypeName(file.dtype()), checksum.Text());
}

}  // namespace shardmax
