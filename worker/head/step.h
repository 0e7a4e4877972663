// What goes into a training step of the sharded head, and what comes out.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "worker/base/matrix_view.h"
#include "worker/head/active_classes.h"
#include "worker/loss/loss_params.h"
#include "worker/optim/update_rule.h"

namespace shardmax {

// Time of each phase of a step on this rank; waiting for peers counts where it happens. What is gathered ahead counts
// in `gather` only as far as it outlasts the update beside it; the first tiles of a score that begins while label
// cosines are summed count in `label`. On a device it is the device's, and that of `backward` without feature gradients
// is of the step before, as nobody waits for this one's.
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
  // B, the rows of the global batch, equal on every rank, >= 1. They stand in rank order, and every result but rounding
  // depends on that order alone, not on N.
  int64_t global_rows = 0;
  // [N], equal on every rank: the rows that each brings, 0 or more, B together. Empty: rank r brings those of
  // BalancedPart(B, r, N). Every block of the exchange is as long as that of the rank that brings most.
  std::span<const int64_t> rank_rows;
  MatrixView<const float> features;    // [rows of this rank, D]
  std::span<const int32_t> labels;     // [rows of this rank]: global class ids, or -1 for rows to ignore
  absl::Status status;                 // An error here (of reading the data, say) fails the step on every rank.
  uint32_t requests = 0;               // Bits of any meaning; StepResult::requests is their union over the ranks.
  bool want_feature_gradients = true;  // Equal on every rank. False spares a product and a collective.
  LossParams loss;                     // Equal on every rank, as is `rule`.
  UpdateRule rule;
  // If given, only the labels of the batch and some other classes take part (active_classes.h): the loss is over them,
  // and the others are not touched.
  std::optional<StepSampling> sampling = std::nullopt;
};

// Equal on every rank, but for feature_gradients and phase_seconds.
struct StepResult {
  double loss = 0;                  // Mean over the kept rows, in nats; 0 if there are none.
  double label_cosine = 0;          // Mean over the rows that are not ignored; 0 if there are none.
  double support_vector_ratio = 0;  // Support vectors over (rows that are not ignored) (classes that take part - 1).
  int64_t counted_rows = 0;         // Rows that are not ignored.
  // With StepSampling::measure_recall: of the support vectors of the batch among all classes, the share that takes
  // part; 1 if there are none.
  std::optional<double> support_vector_recall;
  uint32_t requests = 0;
  // dloss/dx [rows of this rank, D] at the weights before the update, with the mean's 1 / (kept rows) in it; empty
  // if not wanted. Valid until the next step.
  MatrixView<const float> feature_gradients;
  PhaseSeconds phase_seconds;
};

// Of `counted_rows` rows and `classes` that take part, as StepResult has it.
inline double SupportVectorRatio(int64_t support_vectors, int64_t counted_rows, double classes) {
  const double pairs = static_cast<double>(counted_rows) * (classes - 1);
  return pairs > 0 ? static_cast<double>(support_vectors) / pairs : 0;
}

}  // namespace shardmax
