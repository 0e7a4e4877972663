// The sharded classification head: one exact training step over all ranks.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/base/matrix_view.h"
#include "worker/comm/communicator.h"
#include "worker/engine/engine.h"
#include "worker/head/active_classes.h"
#include "worker/head/gather_block.h"
#include "worker/head/partial_exchange.h"
#include "worker/head/row_outcomes.h"
#include "worker/loss/loss_params.h"
#include "worker/optim/update_rule.h"

namespace shardmax {

// Wall time of each phase of a step on this rank; waiting for peers counts where it happens.
struct PhaseSeconds {
  double gather = 0, label = 0, score = 0, normalise = 0, backward = 0, scatter = 0;

  PhaseSeconds& operator+=(const PhaseSeconds& other) {
    gather += other.gather;
    label += other.label;
    score += other.score;
    normalise += other.normalise;
    backward += other.backward;
    scatter += other.scatter;
    return *this;
  }
};

// What one rank brings to a step.
struct StepInput {
  // B, the rows of the global batch, equal on every rank, >= 1. Rank r brings the rows of BalancedPart(B, r, N): the
  // global row order, and with it every result but rounding, does not depend on N.
  int64_t global_rows = 0;
  MatrixView<const float> features;    // [rows of this rank, D]
  std::span<const int32_t> labels;     // [rows of this rank]: global class ids, or -1 for rows to ignore
  absl::Status status;                 // An error here (of reading the data, say) fails the step on every rank.
  uint32_t requests = 0;               // Bits of any meaning; StepResult::requests is their union over the ranks.
  bool want_feature_gradients = true;  // Equal on every rank. False spares a product and a collective.
  LossParams loss;                     // Equal on every rank, as is `rule`.
  UpdateRule rule;
  // If given, only the labels of the batch and randomly drawn classes take part: the loss is over them, and the others
  // are not touched. Equal on every rank.
  std::optional<StepSampling> sampling = std::nullopt;
};

// Equal on every rank, but for feature_gradients and phase_seconds.
struct StepResult {
  double loss = 0;                  // Mean over the kept rows, in nats; 0 if there are none.
  double label_cosine = 0;          // Mean over the rows that are not ignored; 0 if there are none.
  double support_vector_ratio = 0;  // Support vectors over (rows that are not ignored) (classes that take part - 1).
  int64_t counted_rows = 0;         // Rows that are not ignored.
  uint32_t requests = 0;
  // dloss/dx [rows of this rank, D] at the weights before the update, with the mean's 1 / (kept rows) in it; empty
  // if not wanted. Valid until the next step.
  MatrixView<const float> feature_gradients;
  PhaseSeconds phase_seconds;
};

// Drives the six phases of a step: gather, label cosine, score, normaliser, backward, scatter. Owns the buffers of
// the exchange; borrows communicator and engine. Four collectives a step (three without feature gradients), which
// carry success along, so that an error of one rank is the error of all, and no weight has changed:
//   InvalidArgument  a label outside [-1, C), a feature that is not finite, a row of length zero (named by rank and
//                    row), or input.status of some rank.
//   FailedPrecondition  weights or logits that are not finite, with the first row.
//   Internal, ResourceExhausted  of the engine of some rank while it scores.
//   DeadlineExceeded, Unavailable  of the communicator, which is broken then.
// An error of some rank's engine in the backward phase leaves weights that are not to be used: go back to a checkpoint.
// Where features have gradients it ends the step on every rank. Else it travels with the gather of the next call, and
// AgreeOnUpdate() asks for it at once.
// Maths: docs/math.md (arXiv:1812.11317).
class ShardedHead {
 public:
  // `num_classes` is C; the engine's shard is that of ShardOfRank.
  ShardedHead(Communicator& comm, Engine& engine, int64_t num_classes);

  // Trains on one batch. Collective: every rank calls, in the same order.
  absl::StatusOr<StepResult> Step(const StepInput& input);

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
  absl::Status Gather(const StepInput& input);
  // Of a sampled step: chooses the active classes and brings them up to date.
  absl::Status Activate(const StepInput& input);
  absl::Status ExchangeLabelCosines(const LossParams& loss);
  // `activated` is this rank's outcome of Activate.
  absl::Status ScoreAndNormalise(const LossParams& loss, const absl::Status& activated, PhaseSeconds& seconds);
  // `updated` is this rank's outcome of the backward phase.
  absl::Status Scatter(MatrixView<const float> features, const absl::Status& updated, StepResult& result);
  EngineBatch batch() const;

  Communicator& comm_;
  Engine& engine_;
  int64_t num_classes_;
  GatherBlocks gather_;
  bool sampled_ = false;  // This step.
  ActiveClasses active_;
  double scored_classes_ = 0;              // Over all ranks.
  std::vector<float> label_cosines_;       // [B], and of a sampled step how many classes are active
  std::vector<ShardPartial> my_partials_;  // [B]
  PartialExchange partials_;
  RowOutcomes rows_;
  absl::Status update_status_;               // Of this rank's last backward phase, while the others do not know it.
  std::vector<float> feature_gradients_;     // N blocks of [rows of a block, D] and a mark; padded to equal size
  std::vector<float> my_feature_gradients_;  // One such block
  std::vector<float> dense_gradients_;       // [B, D]
};

}  // namespace shardmax
