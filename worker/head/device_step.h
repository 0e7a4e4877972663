// A step whose phases run on devices that exchange by themselves: the host waits once, at its end.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"
#include "worker/comm/device_collectives.h"
#include "worker/engine/device_phases.h"
#include "worker/engine/engine.h"
#include "worker/head/step.h"

namespace shardmax {

// The six phases of ShardedHead::Step, on phases and collectives of devices: the same results and the same errors,
// named alike. Everything is enqueued: what a rank finds wrong travels in the headers of its blocks, keeps every update
// from changing a weight, and is read at the one wait. Without feature gradients the host waits for the normaliser
// alone, so that the rows of the next step are read, checked and gathered while the weights of this one are updated;
// what is wrong with them fails their own step.
//
// After an error of the communicator weights are not to be used: an update may have run on what an aborted collective
// had left.
class DeviceStep {
 public:
  // Null unless the engine is on a device, and alone or connected to others by `comm`.
  static std::unique_ptr<DeviceStep> Make(Communicator& comm, Engine& engine, int64_t num_classes);

  // As ShardedHead::Step. Collective.
  absl::StatusOr<StepResult> Run(const StepInput& input);

  // Of this rank's last backward phase, while the others do not know it.
  const absl::Status& update_status() const { return update_status_; }

 private:
  DeviceStep(Communicator& comm, DevicePhases& device, const EngineOptions& options, int64_t num_classes);

  absl::Status Reserve(const DeviceStepShape& shape);
  // Enqueues the phases up to what the host waits for.
  absl::Status Enqueue(const DeviceStepShape& shape, const StepInput& input);
  absl::Status EnqueueScores();
  absl::Status EnqueueBackward(bool want_feature_gradients);
  absl::Status FillRows(const StepInput& input, const DeviceRows& rows) const;
  absl::Status AllGather(const DeviceBlocks& blocks);
  // What rank and row are to blame for a step that does not go on.
  absl::Status Diagnose(const DeviceStepShape& shape, const LossParams& loss);
  StepResult Result(const DeviceStepShape& shape, const DeviceOutcome& outcome) const;
  // An error of this rank that leaves the others waiting for it breaks the communicator.
  absl::Status OrBreak(const absl::Status& status);

  Communicator& comm_;
  DeviceCollectives* const wire_;  // Null where this rank is alone.
  DevicePhases& device_;
  const int64_t dim_;
  const int64_t num_classes_;
  int64_t reserved_rows_, reserved_block_rows_;
  std::vector<Range> rows_of_rank_;
  absl::Status updated_;  // Of this rank's backward phase of the step.
  absl::Status update_status_;
};

}  // namespace shardmax
