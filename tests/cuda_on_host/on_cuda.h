// Heads on the CUDA engine, a device a rank, connected by NCCL.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

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

// The rows of `tensor` of the engine's shard, [C_r, D].
inline std::vector<float> Rows(const Engine& engine, const std::string& tensor) {
  const Range shard = engine.options().shard;
  std::vector<float> rows(static_cast<size_t>(shard.count * engine.options().dim));
  EXPECT_TRUE(engine.ReadRows(tensor, shard, {rows.data(), shard.count, engine.options().dim}).ok());
  return rows;
}

}  // namespace shardmax
