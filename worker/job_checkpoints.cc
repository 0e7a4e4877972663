#include "worker/job_checkpoints.h"

#include <spdlog/logger.h>

#include <utility>

#include "worker/base/status.h"
#include "worker/job_tensors.h"
#include "worker/shard_snapshot.h"
#include "worker/snapshot_memory.h"

namespace shardmax {
namespace {

double SecondsOf(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

const NeighbourGraph* JobCheckpoints::Graph() const {
  return context_.neighbours != nullptr && context_.neighbours->built() ? context_.neighbours : nullptr;
}

int64_t JobCheckpoints::Neighbours() const {
  return Graph() != nullptr ? Graph()->neighbours() : 0;
}

v1::Manifest JobCheckpoints::MakeManifest(int64_t steps_done) const {
  v1::Manifest manifest;
  manifest.set_step(static_cast<int32_t>(steps_done));
  manifest.set_num_classes(context_.train.num_classes());
  manifest.set_dim(context_.train.dim());
  manifest.set_optimizer(context_.plan.optimizer.kind == OptimizerKind::kSgd ? "sgd" : "adamw");
  manifest.add_tensors("weight");
  for (const std::string& name : context_.plan.optimizer.StateNames()) manifest.add_tensors(name);
  const bool bfloat16_state = context_.plan.optimizer.state_type == StateType::kBfloat16;
  if (bfloat16_state && manifest.tensors_size() > 1) manifest.set_state_dtype("BF16");
  if (const NeighbourGraph* graph = Graph(); graph != nullptr) {
    manifest.add_tensors(kNeighboursTensor);
    manifest.set_neighbours(static_cast<int32_t>(graph->neighbours()));
  }
  return manifest;
}

absl::StatusOr<std::unique_ptr<CheckpointWrite>> JobCheckpoints::Begin(int64_t steps_done) {
  start_ = Clock::now();
  return CheckpointWrite::Begin(context_.comm, context_.checkpoints_folder, MakeManifest(steps_done),
                                context_.engine.options().shard, context_.train.checkpoint().keep());
}

absl::Status JobCheckpoints::Write(int64_t steps_done) {
  SHARDMAX_RETURN_IF_ERROR(Finish());
  SHARDMAX_ASSIGN_OR_RETURN(const auto write, Begin(steps_done));
  return WriteAtOnce(*write);
}

absl::Status JobCheckpoints::WriteAtOnce(CheckpointWrite& write) {
  const JobTensors tensors = {context_.engine, context_.neighbours};
  write.WriteShard([&tensors](const std::string& name, Range classes, MatrixView<float> rows) {
    return tensors.ReadRows(name, classes, rows);
  });
  return Publish(write, "");
}

absl::StatusOr<bool> JobCheckpoints::RoomForSnapshot(int64_t steps_done) {
  const EngineOptions& options = context_.engine.options();
  const int64_t bytes = ShardSnapshot::BytesOf(options, Neighbours());
  // All ranks see this alike: shards differ by one class.
  const int64_t of_largest =
      bytes / options.shard.count * BalancedPart(context_.train.num_classes(), 0, context_.comm.size()).count;
  if (of_largest < context_.min_snapshot_bytes) return false;
  if (!options.storage_folder.empty()) {
    if (context_.log != nullptr) {
      context_.log->info(
          "step {}: training pauses for the checkpoint: train.storage is MMAP, and a snapshot in memory "
          "would drive out what is mapped",
          steps_done);
    }
    return false;
  }
  SHARDMAX_ASSIGN_OR_RETURN(const SnapshotRoom room, AgreeOnSnapshotRoom(context_.comm, bytes));
  if (!room.suffices() && context_.log != nullptr) {
    context_.log->info("step {}: training pauses for the checkpoint: {}", steps_done, room.Describe());
  }
  return room.suffices();
}

absl::Status JobCheckpoints::WriteBehind(int64_t steps_done) {
  SHARDMAX_RETURN_IF_ERROR(Finish());
  SHARDMAX_ASSIGN_OR_RETURN(const bool room, RoomForSnapshot(steps_done));
  if (!room) return Write(steps_done);
  SHARDMAX_ASSIGN_OR_RETURN(auto write, Begin(steps_done));
  auto snapshot = ShardSnapshot::Take(context_.engine, Graph());
  if (const absl::Status taken = AgreeOk(context_.comm, snapshot.status()); absl::IsResourceExhausted(taken)) {
    if (context_.log != nullptr) {
      context_.log->info("step {}: training pauses for the checkpoint: {}", steps_done, Message(taken));
    }
    return WriteAtOnce(*write);
  } else if (!taken.ok()) {
    return taken;
  }
  background_ = std::make_unique<BackgroundWrite>(std::move(write), *std::move(snapshot));
  if (context_.log != nullptr) {
    context_.log->info("step {}: took a snapshot for a checkpoint in {:.2f} s; it is written while training goes on",
                       steps_done, SecondsOf(start_));
  }
  return absl::OkStatus();
}

absl::Status JobCheckpoints::AfterStep(uint32_t requests) {
  if (background_ == nullptr || (requests & kStillWriting) != 0) return absl::OkStatus();
  return Finish();
}

absl::Status JobCheckpoints::Finish() {
  if (background_ == nullptr) return absl::OkStatus();
  const std::unique_ptr<BackgroundWrite> background = std::move(background_);
  CheckpointWrite& write = background->Await();
  // The job may have been taken away since it began.
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context_.comm, context_.requests.MayWrite()));
  return Publish(write, " behind the training");
}

absl::Status JobCheckpoints::Publish(CheckpointWrite& write, const std::string& how) {
  SHARDMAX_RETURN_IF_ERROR(write.Finish(context_.comm));
  const double seconds = SecondsOf(start_);
  newest_step_ = write.step();
  if (context_.log != nullptr) {
    context_.log->info("step {}: wrote a checkpoint{} in {:.2f} s", newest_step_, how, seconds);
  }
  const int64_t neighbours = write.manifest().neighbours();
  EngineOptions all = context_.engine.options();
  all.shard = {0, context_.train.num_classes()};
  for (JobObserver* observer : context_.observers) {
    observer->OnCheckpoint(newest_step_, seconds, ShardSnapshot::BytesOf(all, neighbours));
  }
  return absl::OkStatus();
}

}  // namespace shardmax
