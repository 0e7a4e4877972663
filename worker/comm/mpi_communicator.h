// The Communicator that MpiSession makes.
#pragma once

#include <mpi.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "worker/comm/communicator_base.h"
#include "worker/comm/mpi_roll_call.h"
#include "worker/comm/mpi_util.h"

namespace shardmax::internal {

class MpiCommunicator final : public CommunicatorBase {
 public:
  // Takes `comm`, a duplicate of MPI_COMM_WORLD. It is freed by MPI_Finalize: MPI_Comm_free is collective, and a peer
  // may have gone. Call Listen() first.
  MpiCommunicator(std::shared_ptr<MpiWorld> world, MPI_Comm comm, std::chrono::milliseconds timeout);
  ~MpiCommunicator() override;

  absl::Status Listen() { return traffic_->roll.Listen(); }

 private:
  // What MPI reads and writes.
  struct Traffic {
    MpiRollCall roll;
    std::vector<std::byte> send;
    std::vector<std::byte> receive;
  };

  // Starts a non-blocking collective of MPI on blocks of bytes.
  using Start = absl::FunctionRef<int(const ByteBlock&, MPI_Request*)>;

  absl::Status DoAllGather(std::span<const std::byte> mine, std::span<std::byte> all) override;
  absl::Status DoAllReduceSum(std::span<float> values) override;
  absl::Status DoReduceScatterSum(std::span<const float> all, std::span<float> mine) override;
  absl::Status DoBroadcast(std::span<std::byte> bytes, int root) override;
  absl::Status DoBarrier() override;
  void OnBroken(const absl::Status& status) override;

  // The blocks `mine` of all ranks, in rank order, in traffic_->receive.
  absl::Status Gather(Operation operation, std::span<const std::byte> mine);
  // Roll call, then the collective that `start` starts (called `mpi_call` in errors) with blocks of `block_bytes`.
  absl::Status Exchange(const Call& call, size_t block_bytes, const char* mpi_call, Start start);
  absl::Status Finish(const Call& call, MPI_Request request, std::chrono::steady_clock::time_point deadline);
  // The block of `rank` in traffic_->receive, as floats.
  std::span<const float> ReceivedFloats(int rank, size_t count) const;

  std::shared_ptr<MpiWorld> world_;
  const MPI_Comm comm_;
  const std::chrono::milliseconds timeout_;
  std::shared_ptr<Traffic> traffic_;
  bool broken_ = false;
};

}  // namespace shardmax::internal
