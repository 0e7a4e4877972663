#include "worker/comm/mpi_util.h"

#include <sched.h>

#include <array>
#include <limits>
#include <string>
#include <utility>

#include "worker/base/status.h"

namespace shardmax::internal {

absl::Status MpiStatus(int code, const char* call, int rank) {
  if (code == MPI_SUCCESS) return absl::OkStatus();
  std::array<char, MPI_MAX_ERROR_STRING> text = {};
  int length = 0;
  int error_class = MPI_ERR_UNKNOWN;
  if (MPI_Error_string(code, text.data(), &length) != MPI_SUCCESS) length = 0;
  if (MPI_Error_class(code, &error_class) != MPI_SUCCESS) error_class = MPI_ERR_UNKNOWN;
  const bool memory = error_class == MPI_ERR_NO_MEM;
  return Error(memory ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable,
               "rank {}: {} failed with code {}: {}", rank, call, code, std::string(text.data(), length));
}

absl::StatusOr<ByteBlock> ByteBlock::Make(size_t bytes, int rank) {
  if (bytes <= static_cast<size_t>(std::numeric_limits<int>::max())) {
    return ByteBlock(static_cast<int>(bytes), MPI_BYTE);
  }
  // Whole gigabytes, then the rest.
  constexpr int kChunk = 1 << 30;
  MPI_Datatype chunk = MPI_DATATYPE_NULL;
  MPI_Datatype block = MPI_DATATYPE_NULL;
  SHARDMAX_MPI(rank, MPI_Type_contiguous, kChunk, MPI_BYTE, &chunk);
  const std::array<int, 2> counts = {static_cast<int>(bytes / kChunk), static_cast<int>(bytes % kChunk)};
  const std::array<MPI_Aint, 2> offsets = {0, static_cast<MPI_Aint>(bytes - bytes % kChunk)};
  const std::array<MPI_Datatype, 2> types = {chunk, MPI_BYTE};
  SHARDMAX_MPI(rank, MPI_Type_create_struct, 2, counts.data(), offsets.data(), types.data(), &block);
  SHARDMAX_MPI(rank, MPI_Type_free, &chunk);
  SHARDMAX_MPI(rank, MPI_Type_commit, &block);
  return ByteBlock(1, block);
}

ByteBlock::~ByteBlock() {
  if (type_ != MPI_BYTE) MPI_Type_free(&type_);
}

ByteBlock::ByteBlock(ByteBlock&& other) noexcept : count_(other.count_), type_(std::exchange(other.type_, MPI_BYTE)) {}

}  // namespace shardmax::internal
