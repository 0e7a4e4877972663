// NVIDIA GPUs, with NCCL between them.
#pragma once

#include <chrono>
#include <memory>

#include "worker/device_backend.h"

namespace shardmax {

// For the rank that is `local_rank` of the `local_ranks` on this machine. `timeout` is that of its communicators; a
// communicator of NCCL gets half of it, so that the roll call after a failure has the longer one. Needs no driver: what
// is missing is said by the calls.
std::unique_ptr<DeviceBackend> MakeCudaBackend(int local_rank, int local_ranks, std::chrono::milliseconds timeout);

}  // namespace shardmax
