// A launch of the worker that serves a pool.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "worker/comm/communicator.h"
#include "worker/job_run.h"
#include "worker/job_runner.h"
#include "worker/options.h"

namespace shardmax {

struct PoolSession {
  const WorkerOptions& options;
  std::string backend;  // Told to the server.
  JobHost host;         // As PoolHost::job.
  std::string metrics_host;
  int metrics_port = 0;
  int data_port = 0;                 // Where trainers reach this rank under that host; 0: they do not.
  std::function<void()> after_turn;  // As PoolHost::after_turn.
};

// Connects rank 0 to the server and runs its jobs until the pool is told to leave, which is exit code 0. Collective. If
// the communicator broke, the server has been told within a few seconds and the caller must abort the process.
JobEnd RunPool(Communicator& comm, const PoolSession& session);

}  // namespace shardmax
