#include "worker/comm/nccl_comm.h"

#include <cuda_runtime.h>
#include <nccl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "worker/base/cuda_status.h"
#include "worker/base/device_buffer.h"
#include "worker/base/status.h"
#include "worker/comm/communicator_base.h"
#include "worker/comm/device_collectives.h"
#include "worker/comm/nccl_wait.h"

namespace shardmax {
namespace {

using cuda::DeviceBuffer;
using cuda::Event;
using cuda::PinnedBuffer;
using cuda::Stream;

// Collectives between two waits, at most, whose end is watched.
constexpr size_t kWatched = 8;

class NcclCommunicator final : public CommunicatorBase, public DeviceCollectives {
 public:
  NcclCommunicator(Communicator& bootstrap, int device, std::chrono::milliseconds timeout)
      : CommunicatorBase(bootstrap.rank(), bootstrap.size()),
        bootstrap_(bootstrap),
        device_(device),
        timeout_(timeout) {}
  ~NcclCommunicator() override {
    cudaSetDevice(device_);
    Close();
  }

  // Collective; all ranks return alike.
  absl::Status Connect();

  DeviceCollectives* device() override { return this; }
  absl::Status AllGather(std::byte* blocks, size_t block_bytes, DeviceStream stream) override {
    return Run(stats_.all_gather, block_bytes, [&] {
      const std::byte* mine = blocks + static_cast<size_t>(rank()) * block_bytes;
      return Enqueue("AllGather", stream,
                     [&] { return ncclAllGather(mine, blocks, block_bytes, ncclUint8, comm_, stream); });
    });
  }
  absl::Status AllReduceSum(float* values, size_t count, DeviceStream stream) override {
    return Run(stats_.all_reduce, count * sizeof(float), [&] {
      return Enqueue("AllReduceSum", stream,
                     [&] { return ncclAllReduce(values, values, count, ncclFloat32, ncclSum, comm_, stream); });
    });
  }
  absl::Status ReduceScatterSum(float* blocks, size_t block_floats, DeviceStream stream) override {
    return Run(stats_.reduce_scatter, block_floats * static_cast<size_t>(size()) * sizeof(float), [&] {
      float* mine = blocks + static_cast<size_t>(rank()) * block_floats;
      return Enqueue("ReduceScatterSum", stream, [&] {
        return ncclReduceScatter(blocks, mine, block_floats, ncclFloat32, ncclSum, comm_, stream);
      });
    });
  }
  absl::Status Await(DeviceEvent event) override;
  absl::Status Break(const absl::Status& status) override {
    CommStats::Counter uncounted;
    return Run(uncounted, 0, [&] { return Blame("the step", status); });
  }
  using CommunicatorBase::AllGather;
  using CommunicatorBase::AllReduceSum;
  using CommunicatorBase::ReduceScatterSum;

 private:
  absl::Status DoAllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    return Exchange("AllGather", mine, all, [&] {
      return ncclAllGather(send_.data(), receive_.data(), mine.size(), ncclUint8, comm_, stream_.get());
    });
  }
  absl::Status DoAllReduceSum(std::span<float> values) override {
    return Exchange("AllReduceSum", std::as_bytes(values), std::as_writable_bytes(values), [&] {
      return ncclAllReduce(send_.data(), receive_.data(), values.size(), ncclFloat32, ncclSum, comm_, stream_.get());
    });
  }
  absl::Status DoReduceScatterSum(std::span<const float> all, std::span<float> mine) override {
    return Exchange("ReduceScatterSum", std::as_bytes(all), std::as_writable_bytes(mine), [&] {
      return ncclReduceScatter(send_.data(), receive_.data(), mine.size(), ncclFloat32, ncclSum, comm_, stream_.get());
    });
  }
  absl::Status DoBroadcast(std::span<std::byte> bytes, int root) override {
    return Exchange("Broadcast", bytes, bytes, [&] {
      return ncclBroadcast(send_.data(), receive_.data(), bytes.size(), ncclUint8, root, comm_, stream_.get());
    });
  }
  absl::Status DoBarrier() override {
    std::byte token{0};
    return Exchange("Barrier", {&token, 1}, {&token, 1}, [&] {
      return ncclBroadcast(send_.data(), receive_.data(), 1, ncclUint8, 0, comm_, stream_.get());
    });
  }
  // Whatever broke it: the peers wait in NCCL, and learn more than their deadline only here.
  void OnBroken(const absl::Status& status) override {
    if (comm_ != nullptr) Blame("", status).IgnoreError();
  }

  // Sends `mine` by way of the device, calls `start`, and brings `result` back.
  template <typename Start>
  absl::Status Exchange(const char* operation, std::span<const std::byte> mine, std::span<std::byte> result,
                        const Start& start);
  template <typename Start>
  absl::Status TryExchange(std::span<const std::byte> mine, std::span<std::byte> result, const Start& start);
  absl::Status Reserve(size_t send_bytes, size_t receive_bytes);
  // Enqueues a collective between devices, and watches for its end.
  template <typename Start>
  absl::Status Enqueue(const char* operation, DeviceStream stream, const Start& start);
  // The first collective since the last wait that has not finished.
  const char* Unfinished() const;
  // Aborts NCCL and asks the ranks what happened. Returns what this rank should say of `mine`.
  absl::Status Blame(const char* operation, const absl::Status& mine);
  void Close();

  Communicator& bootstrap_;
  const int device_;
  const std::chrono::milliseconds timeout_;
  Stream stream_;
  Event done_;
  DeviceBuffer<std::byte> send_;
  DeviceBuffer<std::byte> receive_;
  PinnedBuffer<std::byte> host_send_;
  PinnedBuffer<std::byte> host_receive_;
  ncclComm_t comm_ = nullptr;

  // Of collectives between devices since the last wait.
  struct Watched {
    const char* operation = "";
    Event end;
  };
  std::array<Watched, kWatched> watched_;
  size_t watched_count_ = 0;
};

absl::Status NcclCommunicator::Connect() {
  ncclUniqueId id = {};
  const auto prepare = [&]() -> absl::Status {
    SHARDMAX_CUDA(cudaSetDevice, device_);
    SHARDMAX_ASSIGN_OR_RETURN(stream_, Stream::Make());
    SHARDMAX_ASSIGN_OR_RETURN(done_, Event::Make());
    for (Watched& watched : watched_) {
      SHARDMAX_ASSIGN_OR_RETURN(watched.end, Event::Make());
    }
    if (rank() != 0) return absl::OkStatus();
    const ncclResult_t made = ncclGetUniqueId(&id);
    return made == ncclSuccess ? absl::OkStatus() : NcclError("ncclGetUniqueId", made, nullptr);
  };
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(bootstrap_, prepare()));
  SHARDMAX_RETURN_IF_ERROR(bootstrap_.Broadcast(std::as_writable_bytes(std::span(&id, 1)), 0));
  const auto connect = [&]() -> absl::Status {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    const NcclWait wait(timeout_);
    const ncclResult_t started = ncclCommInitRankConfig(&comm_, size(), id, rank(), &config);
    return wait.ForCall("ncclCommInitRankConfig", started, comm_);
  };
  const absl::Status connected = connect();
  if (!connected.ok() && comm_ != nullptr) ncclCommAbort(std::exchange(comm_, nullptr));
  return AgreeOk(bootstrap_, connected);
}

template <typename Start>
absl::Status NcclCommunicator::Enqueue(const char* operation, DeviceStream stream, const Start& start) {
  const auto enqueue = [&]() -> absl::Status {
    SHARDMAX_CUDA(cudaSetDevice, device_);
    SHARDMAX_RETURN_IF_ERROR(NcclWait(timeout_).ForCall("NCCL", start(), comm_));
    if (watched_count_ == kWatched) return absl::OkStatus();
    Watched& watched = watched_[watched_count_++];
    watched.operation = operation;
    SHARDMAX_CUDA(cudaEventRecord, watched.end.get(), stream);
    return absl::OkStatus();
  };
  const absl::Status status = enqueue();
  return status.ok() ? status : Blame(operation, status);
}

const char* NcclCommunicator::Unfinished() const {
  for (size_t i = 0; i < watched_count_; ++i) {
    if (cudaEventQuery(watched_[i].end.get()) == cudaErrorNotReady) return watched_[i].operation;
  }
  return "the step";
}

absl::Status NcclCommunicator::Await(DeviceEvent event) {
  CommStats::Counter uncounted;
  const absl::Status status = Run(uncounted, 0, [&]() -> absl::Status {
    const absl::Status arrived = NcclWait(timeout_).ForEvent(event, comm_);
    return arrived.ok() ? arrived : Blame(Unfinished(), arrived);
  });
  watched_count_ = 0;
  return status;
}

absl::Status NcclCommunicator::Reserve(size_t send_bytes, size_t receive_bytes) {
  const auto grow = [](auto& buffer, size_t bytes) -> absl::Status {
    using Buffer = std::remove_reference_t<decltype(buffer)>;
    if (buffer.size() >= static_cast<int64_t>(bytes)) return absl::OkStatus();
    buffer = Buffer();
    SHARDMAX_ASSIGN_OR_RETURN(buffer, Buffer::Allocate(static_cast<int64_t>(bytes)));
    return absl::OkStatus();
  };
  SHARDMAX_RETURN_IF_ERROR(grow(send_, send_bytes));
  SHARDMAX_RETURN_IF_ERROR(grow(host_send_, send_bytes));
  SHARDMAX_RETURN_IF_ERROR(grow(receive_, receive_bytes));
  return grow(host_receive_, receive_bytes);
}

template <typename Start>
absl::Status NcclCommunicator::TryExchange(std::span<const std::byte> mine, std::span<std::byte> result,
                                           const Start& start) {
  SHARDMAX_CUDA(cudaSetDevice, device_);
  SHARDMAX_RETURN_IF_ERROR(Reserve(mine.size(), result.size()));
  std::copy(mine.begin(), mine.end(), host_send_.data());
  SHARDMAX_CUDA(cudaMemcpyAsync, send_.data(), host_send_.data(), mine.size(), cudaMemcpyHostToDevice, stream_.get());
  const NcclWait wait(timeout_);
  SHARDMAX_RETURN_IF_ERROR(wait.ForCall("NCCL", start(), comm_));
  SHARDMAX_CUDA(cudaMemcpyAsync, host_receive_.data(), receive_.data(), result.size(), cudaMemcpyDeviceToHost,
                stream_.get());
  SHARDMAX_CUDA(cudaEventRecord, done_.get(), stream_.get());
  SHARDMAX_RETURN_IF_ERROR(wait.ForEvent(done_.get(), comm_));
  std::copy_n(host_receive_.data(), result.size(), result.begin());
  return absl::OkStatus();
}

template <typename Start>
absl::Status NcclCommunicator::Exchange(const char* operation, std::span<const std::byte> mine,
                                        std::span<std::byte> result, const Start& start) {
  if (mine.empty()) return absl::OkStatus();  // On every rank.
  const absl::Status status = TryExchange(mine, result, start);
  return status.ok() ? status : Blame(operation, status);
}

absl::Status NcclCommunicator::Blame(const char* operation, const absl::Status& mine) {
  cudaSetDevice(device_);
  ncclCommAbort(std::exchange(comm_, nullptr));
  // Ranks whose own wait ended first are told apart from those that NCCL told something: a deadline is the least that
  // can be said.
  const bool is_late = mine.code() == absl::StatusCode::kDeadlineExceeded;
  const absl::Status cause = AgreeOk(bootstrap_, is_late ? absl::OkStatus() : mine);
  const std::string context = fmt::format("{} on rank {}", operation, rank());
  if (cause.ok()) return Annotate(mine, context + ", though every rank is there");
  if (is_late) return Error(cause.code(), "{}: {}: {}", context, Message(mine), Message(cause));
  return Annotate(cause, context);
}

void NcclCommunicator::Close() {
  if (comm_ == nullptr) return;
  const NcclWait wait(timeout_);
  const absl::Status closed = wait.ForCall("ncclCommFinalize", ncclCommFinalize(comm_), comm_);
  if (closed.ok()) {
    ncclCommDestroy(comm_);
  } else {
    ncclCommAbort(comm_);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclComm(Communicator& bootstrap, int device,
                                                           std::chrono::milliseconds timeout) {
  auto comm = std::make_unique<NcclCommunicator>(bootstrap, device, timeout);
  SHARDMAX_RETURN_IF_ERROR(comm->Connect());
  return comm;
}

}  // namespace shardmax
