// The phases of a step on a device, for a head that moves their results between devices without the host.
//
// The same work as the phases of Engine (engine.h), but every call only enqueues: what a phase needs of the one before
// stays in the device's memory, and so does whether the step goes on. The host reads all of it at one wait. Work on the
// shard is on a stream of the engine's own; the head enqueues collectives on wire(), and the calls below put the waits
// between the two.
//
// Shapes: N ranks, B rows of the global batch, R rows of the largest part of a rank, D feature width.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "worker/base/device_handles.h"
#include "worker/base/shard_range.h"
#include "worker/engine/device_header.h"
#include "worker/loss/loss_params.h"
#include "worker/loss/normalizer.h"
#include "worker/optim/update_rule.h"

namespace shardmax {

// The shape of a step, equal on every rank but for `rank`.
struct DeviceStepShape {
  std::span<const Range> rows_of_rank;  // [N]: a part of [0, B) each, ascending, without gaps.
  int rank = 0;
  bool want_feature_gradients = true;

  int ranks() const { return static_cast<int>(rows_of_rank.size()); }
  int64_t rows() const { return rows_of_rank.back().end(); }  // B
  Range mine() const { return rows_of_rank[static_cast<size_t>(rank)]; }
  int64_t block_rows() const {  // R
    int64_t largest = 0;
    for (const Range& rows : rows_of_rank) largest = rows.count > largest ? rows.count : largest;
    return largest;
  }
};

// Where the host puts this rank's part of a step, in page-locked memory. It holds what it held before.
struct DeviceRows {
  std::byte* header = nullptr;     // [DeviceHeader::kStatusBytes]
  float* features = nullptr;       // x̂ [R, D]
  int32_t* labels = nullptr;       // [R]
  float* inverse_norms = nullptr;  // [R]: 1 / ‖x‖
};

// Blocks of all ranks in device memory; that of this rank is in its place.
struct DeviceBlocks {
  std::byte* data = nullptr;
  size_t block_bytes = 0;
};

// What the host knows after the wait. Views are valid until the next step.
struct DeviceOutcome {
  bool go = false;  // Else some rank's rows or scores are not as they should be, and no weight has changed.
  double loss = 0;  // Mean over the kept rows.
  double mean_label_cosine = 0;
  int64_t counted_rows = 0;
  int64_t support_vectors = 0;
  const std::byte* row_headers = nullptr;      // [N, DeviceHeader::kBytes], of the gather of rows
  const std::byte* partial_headers = nullptr;  // The same of partials: the engine's part is the global id of a class
                                               // whose weights are not finite, or -1.
  const float* feature_gradients = nullptr;    // dloss/dx [rows of this rank, D], if wanted
  float failed_ranks = 0;                      // The sum of `mark` over the ranks, if feature gradients were wanted.
};

// Seconds of the phases on the device. `backward` is that of the newest step which has ended: without feature gradients
// the host does not wait for it.
struct DeviceSeconds {
  double gather = 0, label = 0, score = 0, normalise = 0, backward = 0, scatter = 0;
};

class DevicePhases {
 public:
  virtual ~DevicePhases() = default;

  // Makes buffers for steps of this shape; one that is not larger than an earlier one in anything needs no call. Waits
  // for the device where it allocates. ResourceExhausted: the buffers of no shape are there then.
  virtual absl::Status Reserve(const DeviceStepShape& shape) = 0;

  // Begins a step. Its rows are to be put where the result says, then SendRows() is called. The rows of `shape` must
  // stay until the step has ended. Requires Reserve().
  virtual DeviceRows Begin(const DeviceStepShape& shape, const LossParams& loss, const UpdateRule& rule) = 0;
  virtual DeviceStream wire() const = 0;

  // This rank's block of rows goes to the device; all-gather row_blocks() next. Overlaps with the step before.
  virtual absl::Status SendRows() = 0;
  virtual DeviceBlocks row_blocks() const = 0;

  // Unpacks the rows and computes label cosines; sum label_cosines() [B] next.
  virtual absl::Status LabelCosines() = 0;
  virtual float* label_cosines() const = 0;

  // Targets from the label cosines, and partial normalisers over the shard.
  virtual absl::Status Score() = 0;
  // They go into this rank's block, behind `status` [DeviceHeader::kStatusBytes]; all-gather partial_blocks() next.
  virtual absl::Status SendPartials(std::span<const std::byte> status) = 0;
  virtual DeviceBlocks partial_blocks() const = 0;

  // Losses, hard rows and gradients of the rows, and whether the step goes on. The host is told: without feature
  // gradients, outcome_event() follows this.
  virtual absl::Status Outcomes() = 0;

  // Updates the weights, unless the step does not go on.
  virtual absl::Status Backward() = 0;

  // Packs the gradients of the features into blocks, each with `mark` behind its [R, D]; sum and scatter
  // gradient_blocks() next. Overlaps with the update of the last classes.
  virtual absl::Status SendGradients(float mark) = 0;
  virtual float* gradient_blocks() const = 0;
  virtual size_t gradient_block_floats() const = 0;  // R D + 1
  // The gradients of this rank's rows go to the host; outcome_event() follows this.
  virtual absl::Status ReceiveGradients() = 0;

  // Comes when the host may read the outcome of the step.
  virtual DeviceEvent outcome_event() const = 0;
  // Waits for it: for a group of one, where no communicator does.
  virtual absl::Status AwaitOutcome() = 0;
  virtual DeviceOutcome outcome() const = 0;
  virtual DeviceSeconds seconds() = 0;

  // What the device found, for a step that does not go on: labels [B], label cosines [B], and the partials of a rank
  // [B]. Waits.
  virtual absl::Status ReadLabels(std::span<int32_t> labels, std::span<float> cosines) = 0;
  virtual absl::Status ReadPartials(int rank, std::span<ShardPartial> partials) = 0;
};

}  // namespace shardmax
