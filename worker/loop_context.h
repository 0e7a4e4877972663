// What the loops of training jobs work with.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shardmax/v1/job.pb.h"
#include "worker/comm/communicator.h"
#include "worker/engine/engine.h"
#include "worker/head/neighbour_graph.h"
#include "worker/job_events.h"
#include "worker/job_folder.h"
#include "worker/training_plan.h"

namespace spdlog {
class logger;
}  // namespace spdlog

namespace shardmax {

// Everything a loop works with; the owner outlives it.
struct LoopContext {
  Communicator& comm;
  Engine& engine;
  const shardmax::v1::Train& train;  // Resolved.
  const TrainingPlan& plan;
  std::string checkpoints_folder;
  NeighbourGraph* neighbours = nullptr;  // Of nearest sampling: as the checkpoint has it that was loaded, if one was.
  MetricsLog* metrics;                   // Null but on rank 0, as is `log`.
  spdlog::logger* log;
  JobRequests& requests;
  std::vector<JobObserver*> observers;
  // Smaller shards are written at once: their ranks would take a snapshot for longer than they would pause.
  int64_t min_snapshot_bytes = int64_t{64} << 20;
};

}  // namespace shardmax
