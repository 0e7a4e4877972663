// Heads on the CUDA engine, a device a rank, connected by NCCL.
#pragma once

#include <chrono>

#include "tests/support/head_run.h"
#include "worker/comm/nccl_comm.h"
#include "worker/engine/cuda/cuda_engine.h"

namespace shardmax {

inline HeadRunOptions OnCuda(HeadRunOptions options) {
  options.factory = [](const EngineOptions& engine, int rank) { return MakeCudaEngine(engine, rank); };
  if (options.ranks > 1) {
    options.connect = [](Communicator& bootstrap) {
      return MakeNcclComm(bootstrap, bootstrap.rank(), std::chrono::minutes(2));
    };
  }
  return options;
}

// The same without NCCL: the head moves everything through the host's memory.
inline HeadRunOptions OnCudaByWayOfTheHost(HeadRunOptions options) {
  options = OnCuda(options);
  options.connect = nullptr;
  return options;
}

}  // namespace shardmax
