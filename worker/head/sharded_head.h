// The sharded classification head: one exact training step over all ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/base/matrix_view.h"
#include "worker/base/side_thread.h"
#include "worker/comm/communicator.h"
#include "worker/engine/engine.h"
#include "worker/head/active_classes.h"
#include "worker/head/batch_rows.h"
#include "worker/head/device_step.h"
#include "worker/head/partial_exchange.h"
#include "worker/head/row_outcomes.h"
#include "worker/head/step.h"
#include "worker/loss/loss_params.h"

namespace shardmax {

// Drives the six phases of a step: gather, label cosine, score, normaliser, backward, scatter. Owns the buffers of
// the exchange; borrows communicator and engine. Four collectives a step (three without feature gradients; one more
// with a graph of neighbours, and one more where recall is measured), which carry success along, so that an error of
// one rank is the error of all, and no weight has changed:
//   InvalidArgument  global_rows and rank_rows that do not fit each other; a label outside [-1, C), a feature that is
//   not finite, a row of length zero (named by rank and
//                    row), or input.status of some rank.
//   FailedPrecondition  weights or logits that are not finite, with the first row.
//   Internal, ResourceExhausted  of the engine of some rank while it scores.
//   DeadlineExceeded, Unavailable  of the communicator, which is broken then.
// An error of some rank's engine in the backward phase leaves weights that are not to be used: go back to a checkpoint.
// Where features have gradients it ends the step on every rank. Else it travels with the next gather, or where that was
// done ahead with the partial normalisers, and AgreeOnUpdate() asks for it at once.
//
// Two of the collectives have company, on the CPU and where ranks do not exchange between devices: the sum of label
// cosines goes on while the engine begins to score (Engine::Prepare), and the next step's rows are read and gathered
// while the weights are updated, if the caller says how (NextRows). Results have the same bits either way.
//
// Where the engine is on a device and the communicator between devices (or there is one rank), the phases run there:
// see device_step.h.
// Maths: docs/math.md (arXiv:1812.11317).
class ShardedHead {
 public:
  // `num_classes` is C; the engine's shard is that of ShardOfRank.
  ShardedHead(Communicator& comm, Engine& engine, int64_t num_classes);

  // Trains on one batch. Collective: every rank calls, in the same order.
  absl::StatusOr<StepResult> Step(const StepInput& input) { return RunStep(input, nullptr); }

  // The same; then has_rows(), if this head can: the next call trains on the rows of next(), does not look at those of
  // its input, and returns what was wrong with them. An error of this step may come before or after next() is called.
  absl::StatusOr<StepResult> Step(const StepInput& input, NextRows next) { return RunStep(input, &next); }
  bool has_rows() const { return rows_.has_next(); }

  // Whether the update of the last step succeeded on every rank: ask before the weights are kept. Collective.
  absl::Status AgreeOnUpdate();

  // Brings every class of this rank to skipped.now() steps: of sampled heads, before their rows are read and before
  // CountNearest. Not collective.
  absl::Status CatchUpAll(SkippedSteps& skipped);

  // How many rows of the global batch have their label as the nearest class centre over all ranks, of how many that
  // are not ignored. Uses global_rows, features, labels and status of the input. Collective.
  struct Accuracy {
    int64_t correct = 0;
    int64_t counted = 0;
  };
  absl::StatusOr<Accuracy> CountNearest(const StepInput& input);

 private:
  // As Step. `next` is null if nothing is to be gathered ahead.
  absl::StatusOr<StepResult> RunStep(const StepInput& input, const NextRows* next);
  // Makes the rows of this step those of rows_. Collective.
  absl::Status GatherOrAdvance(const StepInput& input);
  // Of a sampled step with a graph: what every rank needs to choose. Collective.
  absl::Status ExchangeNeighbours(const StepInput& input);
  // Of a sampled step: chooses the active classes and brings them up to date.
  absl::Status Activate(const StepInput& input);
  // `ready` is this rank's outcome so far, as below.
  absl::Status ExchangeLabelCosines(const StepInput& input, const absl::Status& ready);
  // Of a sampled step: the support vectors of the batch among all classes, a part of them at a time, for which those
  // are caught up.
  absl::Status CountSupportVectors(const StepInput& input, const absl::Status& ready);
  // Those of this rank.
  absl::StatusOr<int64_t> CountOwnSupportVectors(const StepInput& input);
  absl::Status ScoreAndNormalise(const StepInput& input, const absl::Status& ready, PhaseSeconds& seconds);
  // Outcome of this rank; its weights have changed.
  absl::Status Backward(const StepInput& input, const NextRows* next, PhaseSeconds& seconds);
  // `updated` is this rank's outcome of the backward phase.
  absl::Status Scatter(const absl::Status& updated, StepResult& result);
  // Whether collectives may go on beside the engine's work.
  bool overlaps() const { return engine_.device() == nullptr && comm_.device() == nullptr; }
  EngineBatch batch() const;
  // Of the last backward phase, wherever it ran.
  const absl::Status& update_status() const {
    return device_step_ != nullptr ? device_step_->update_status() : update_status_;
  }

  Communicator& comm_;
  Engine& engine_;
  int64_t num_classes_;
  std::unique_ptr<DeviceStep> device_step_;
  BatchRows rows_;
  bool sampled_ = false;  // This step.
  NeighbourLists neighbours_;
  ActiveClasses active_;
  int64_t all_support_vectors_ = 0;        // Of CountSupportVectors.
  double scored_classes_ = 0;              // Over all ranks.
  std::vector<float> label_cosines_;       // [B], and of a sampled step how many classes are active
  std::vector<ShardPartial> my_partials_;  // [B]
  PartialExchange partials_;
  std::vector<std::span<const ShardPartial>> partials_of_ranks_;  // Of the last step.
  RowOutcomes outcomes_;
  absl::Status update_status_;               // Of this rank's last backward phase, while the others do not know it.
  std::vector<float> feature_gradients_;     // N blocks of [rows of a block, D] and a mark; padded to equal size
  std::vector<float> my_feature_gradients_;  // One such block
  std::vector<float> dense_gradients_;       // [B, D]
  SideThread side_;                          // For collectives beside the engine.
};

}  // namespace shardmax
