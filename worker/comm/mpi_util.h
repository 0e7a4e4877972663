// What the MPI sources share. Includes <mpi.h>: for the sources of worker/comm only.
#pragma once

#include <mpi.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shardmax::internal {

// MPI as this process sees it; shared by the session and its communicators.
struct MpiWorld {
  int rank = 0;
  int size = 1;
  int local_size = 1;                    // Ranks on this machine.
  int local_rank = 0;                    // This one among them.
  std::vector<int> processors;           // Of this rank, ids.
  std::chrono::milliseconds timeout{0};  // Of MPI_Finalize.
  bool finalized = false;
  bool broken = false;  // A communicator had an error.
  // Memory that MPI may still read or write: a non-blocking collective that timed out cannot be cancelled.
  std::vector<std::shared_ptr<void>> kept_until_finalize;
};

// OK, or `call` with MPI's text for `code` and the rank it happened on: Unavailable, as MPI says little about causes
// and the usual one is a lost peer; ResourceExhausted where MPI says so.
absl::Status MpiStatus(int code, const char* call, int rank);

// Calls an MPI function and returns from the enclosing function if it fails: SHARDMAX_MPI(rank, MPI_Test, &request, …).
#define SHARDMAX_MPI(rank, function, ...) \
  SHARDMAX_RETURN_IF_ERROR(::shardmax::internal::MpiStatus(function(__VA_ARGS__), #function, rank))

// A datatype of `bytes` bytes, for messages of any length: MPI's own counts end at 2^31 - 1.
class ByteBlock {
 public:
  static absl::StatusOr<ByteBlock> Make(size_t bytes, int rank);
  ~ByteBlock();
  ByteBlock(ByteBlock&& other) noexcept;
  ByteBlock(const ByteBlock&) = delete;
  ByteBlock& operator=(const ByteBlock&) = delete;

  // A message is `count` of `type`. Calls that are given the type may outlive this object.
  int count() const { return count_; }
  MPI_Datatype type() const { return type_; }

 private:
  ByteBlock(int count, MPI_Datatype type) : count_(count), type_(type) {}

  int count_;
  MPI_Datatype type_;
};

}  // namespace shardmax::internal
