#include "worker/comm/mpi_communicator.h"

#include <algorithm>
#include <utility>

#include "worker/base/status.h"
#include "worker/comm/pacer.h"
#include "worker/comm/rank_order_sum.h"

namespace shardmax::internal {
namespace {

// How long the wait for the data of a call keeps its core before it starts to sleep. MPI moves long messages in pieces,
// one whenever somebody polls, so this covers the whole transfer at half a gigabyte per second or more.
std::chrono::nanoseconds BusyTime(size_t bytes) {
  return std::chrono::microseconds(100) + std::chrono::nanoseconds(2 * bytes);
}

}  // namespace

MpiCommunicator::MpiCommunicator(std::shared_ptr<MpiWorld> world, MPI_Comm comm, std::chrono::milliseconds timeout)
    : CommunicatorBase(world->rank, world->size),
      world_(std::move(world)),
      comm_(comm),
      timeout_(timeout),
      traffic_(new Traffic{.roll = MpiRollCall(comm, rank(), size(), timeout)}) {
  world_->kept_until_finalize.push_back(traffic_);
}

MpiCommunicator::~MpiCommunicator() {
  if (world_->finalized) return;
  traffic_->roll.Leave();
  traffic_->roll.Cancel();
  if (broken_) return;
  traffic_->send = {};
  traffic_->receive = {};
}

void MpiCommunicator::OnBroken(const absl::Status& status) {
  broken_ = true;
  world_->broken = true;
  traffic_->roll.Fail(stats().Total().calls + 1, status);
}

absl::Status MpiCommunicator::Exchange(const Call& call, size_t block_bytes, const char* mpi_call, Start start) {
  const auto deadline = std::chrono::steady_clock::now() + timeout_;
  SHARDMAX_RETURN_IF_ERROR(traffic_->roll.Await(call, deadline));
  if (call.bytes == 0) return absl::OkStatus();
  SHARDMAX_ASSIGN_OR_RETURN(const ByteBlock block, ByteBlock::Make(block_bytes, rank()));
  MPI_Request request = MPI_REQUEST_NULL;
  SHARDMAX_RETURN_IF_ERROR(MpiStatus(start(block, &request), mpi_call, rank()));
  return Finish(call, request, deadline);
}

absl::Status MpiCommunicator::Finish(const Call& call, MPI_Request request,
                                     std::chrono::steady_clock::time_point deadline) {
  for (Pacer pacer(BusyTime(call.bytes * size()));; pacer.Pause()) {
    int done = 0;
    SHARDMAX_MPI(rank(), MPI_Test, &request, &done, MPI_STATUS_IGNORE);
    if (done != 0) return absl::OkStatus();
    SHARDMAX_RETURN_IF_ERROR(traffic_->roll.Poll());
    SHARDMAX_RETURN_IF_ERROR(traffic_->roll.PeerFailure());
    if (traffic_->roll.PeerStalls() || std::chrono::steady_clock::now() >= deadline) {
      return traffic_->roll.Stall(call);
    }
  }
}

absl::Status MpiCommunicator::Gather(Operation operation, std::span<const std::byte> mine) {
  std::vector<std::byte>& receive = traffic_->receive;
  receive.resize(mine.size() * size());
  std::copy(mine.begin(), mine.end(), receive.begin() + static_cast<ptrdiff_t>(mine.size() * rank()));
  return Exchange({.operation = operation, .bytes = mine.size()}, mine.size(), "MPI_Iallgather",
                  [&](const ByteBlock& block, MPI_Request* request) {
                    return MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, receive.data(), block.count(),
                                          block.type(), comm_, request);
                  });
}

std::span<const float> MpiCommunicator::ReceivedFloats(int rank, size_t count) const {
  return {reinterpret_cast<const float*>(traffic_->receive.data()) + rank * count, count};
}

absl::Status MpiCommunicator::DoAllGather(std::span<const std::byte> mine, std::span<std::byte> all) {
  SHARDMAX_RETURN_IF_ERROR(Gather(Operation::kAllGather, mine));
  std::copy_n(traffic_->receive.begin(), all.size(), all.begin());
  return absl::OkStatus();
}

absl::Status MpiCommunicator::DoAllReduceSum(std::span<float> values) {
  SHARDMAX_RETURN_IF_ERROR(Gather(Operation::kAllReduceSum, std::as_bytes(values)));
  SumInRankOrder(
      size(), [&](int r) { return ReceivedFloats(r, values.size()); }, values);
  return absl::OkStatus();
}

absl::Status MpiCommunicator::DoReduceScatterSum(std::span<const float> all, std::span<float> mine) {
  const std::span<const std::byte> bytes = std::as_bytes(all);
  traffic_->send.assign(bytes.begin(), bytes.end());
  traffic_->receive.resize(bytes.size());
  SHARDMAX_RETURN_IF_ERROR(
      Exchange({.operation = Operation::kReduceScatterSum, .bytes = bytes.size()}, mine.size_bytes(), "MPI_Ialltoall",
               [&](const ByteBlock& block, MPI_Request* request) {
                 return MPI_Ialltoall(traffic_->send.data(), block.count(), block.type(), traffic_->receive.data(),
                                      block.count(), block.type(), comm_, request);
               }));
  SumInRankOrder(
      size(), [&](int r) { return ReceivedFloats(r, mine.size()); }, mine);
  return absl::OkStatus();
}

absl::Status MpiCommunicator::DoBroadcast(std::span<std::byte> bytes, int root) {
  traffic_->receive.assign(bytes.begin(), bytes.end());
  SHARDMAX_RETURN_IF_ERROR(Exchange({.operation = Operation::kBroadcast, .bytes = bytes.size(), .root = root},
                                    bytes.size(), "MPI_Ibcast", [&](const ByteBlock& block, MPI_Request* request) {
                                      return MPI_Ibcast(traffic_->receive.data(), block.count(), block.type(), root,
                                                        comm_, request);
                                    }));
  std::copy(traffic_->receive.begin(), traffic_->receive.end(), bytes.begin());
  return absl::OkStatus();
}

absl::Status MpiCommunicator::DoBarrier() {
  return traffic_->roll.Await({.operation = Operation::kBarrier}, std::chrono::steady_clock::now() + timeout_);
}

}  // namespace shardmax::internal
