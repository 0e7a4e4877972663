#include "worker/cuda_backend.h"

#include "worker/base/status.h"
#include "worker/comm/nccl_comm.h"
#include "worker/engine/cuda/cuda_engine.h"
#include "worker/engine/cuda/device.h"

namespace shardmax {
namespace {

class CudaBackend final : public DeviceBackend {
 public:
  CudaBackend(int local_rank, int local_ranks, std::chrono::milliseconds timeout)
      : local_rank_(local_rank), local_ranks_(local_ranks), timeout_(timeout) {}

  absl::StatusOr<int> CountDevices() const override { return cuda::CountDevices(); }

  absl::StatusOr<EngineChoice> MakeEngine(const EngineOptions& options) const override {
    SHARDMAX_ASSIGN_OR_RETURN(const int device, cuda::DeviceOfRank(local_rank_, local_ranks_));
    SHARDMAX_ASSIGN_OR_RETURN(const cuda::DeviceInfo info, cuda::UseDevice(device));
    EngineChoice choice;
    SHARDMAX_ASSIGN_OR_RETURN(choice.engine, MakeCudaEngine(options, device));
    const bool keeps = options.cosines != CosineStorage::kRecompute;
    choice.description =
        fmt::format("cuda engine, {} (compute capability {}.{}), {} products, cosines computed twice{}", info.name,
                    info.compute_capability / 10, info.compute_capability % 10,
                    options.precision == Precision::kBfloat16 ? "bfloat16" : "float32",
                    keeps ? ": only the cpu engine keeps them" : "");
    return choice;
  }

  absl::StatusOr<std::unique_ptr<Communicator>> MakeComm(Communicator& bootstrap) const override {
    SHARDMAX_ASSIGN_OR_RETURN(const int device, cuda::DeviceOfRank(local_rank_, local_ranks_));
    return MakeNcclComm(bootstrap, device, timeout_ / 2);
  }

 private:
  const int local_rank_;
  const int local_ranks_;
  const std::chrono::milliseconds timeout_;
};

}  // namespace

std::unique_ptr<DeviceBackend> MakeCudaBackend(int local_rank, int local_ranks, std::chrono::milliseconds timeout) {
  return std::make_unique<CudaBackend>(local_rank, local_ranks, timeout);
}

}  // namespace shardmax
