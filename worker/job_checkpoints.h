// The checkpoints of a running job.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "shardmax/v1/checkpoint.pb.h"
#include "worker/background_write.h"
#include "worker/loop_context.h"

namespace shardmax {

// A bit of StepInput::requests and RankNotice::requests: the file of this rank is not written yet. Steps without it
// from any rank may publish.
inline constexpr uint32_t kStillWriting = uint32_t{1} << 31;

// Writes the engine's shard, whose classes are caught up, and tells log and observers. One checkpoint at a time: the
// next waits for the one before. Methods are collective where they say so, and then all ranks return alike.
class JobCheckpoints {
 public:
  // Borrows.
  explicit JobCheckpoints(const LoopContext& context) : context_(context) {}

  // The weights are those after `steps` steps, as the newest checkpoint has them.
  void BeginAt(int64_t steps) { newest_step_ = steps; }

  // Writes the state after `steps_done` steps and waits for it. Collective.
  absl::Status Write(int64_t steps_done);

  // Takes a snapshot of it, which is written while training goes on, if there is memory for that on every machine; else
  // as Write, and the log says why. Collective.
  absl::Status WriteBehind(int64_t steps_done);

  // What this rank brings to the next step's requests.
  uint32_t requests() const { return background_ != nullptr && !background_->done() ? kStillWriting : 0; }

  // Publishes what was written behind if a step with these requests, of all ranks, says that all have. Collective, and
  // does not wait for the disk.
  absl::Status AfterStep(uint32_t requests);

  // Waits for what is written behind, if anything is, and publishes it. Collective.
  absl::Status Finish();

  // Steps done of the newest checkpoint that is on the disk, or that the run began with; 0 if none.
  int64_t newest_step() const { return newest_step_; }

  // Of the one that is written behind, if one is; else as newest_step().
  int64_t snapshot_step() const { return background_ != nullptr ? background_->step() : newest_step_; }

 private:
  using Clock = std::chrono::steady_clock;

  // The graph of nearest classes, if one is built, and its k, else 0.
  const NeighbourGraph* Graph() const;
  int64_t Neighbours() const;
  shardmax::v1::Manifest MakeManifest(int64_t steps_done) const;
  absl::StatusOr<std::unique_ptr<CheckpointWrite>> Begin(int64_t steps_done);
  absl::Status WriteAtOnce(CheckpointWrite& write);
  // Whether every machine has memory for snapshots, and they are worth while; else the log says why not. Collective.
  absl::StatusOr<bool> RoomForSnapshot(int64_t steps_done);
  absl::Status Publish(CheckpointWrite& write, const std::string& how);

  const LoopContext& context_;
  std::unique_ptr<BackgroundWrite> background_;  // On all ranks or on none.
  Clock::time_point start_;                      // Of the newest.
  int64_t newest_step_ = 0;
};

}  // namespace shardmax
