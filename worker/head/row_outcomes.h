// What follows for each row of the global batch from its label cosine and its normaliser. Every rank works it out
// alike, so it costs no collective.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "worker/engine/engine.h"
#include "worker/loss/loss_params.h"
#include "worker/loss/normalizer.h"
#include "worker/loss/target_logit.h"

namespace shardmax {

class RowOutcomes {
 public:
  // Takes the cosines of the labels [B] and sets thresholds(). Rows labelled -1 get a threshold of +inf.
  // FailedPrecondition, naming the row: a cosine that is not finite.
  absl::Status SetLabelCosines(const LossParams& loss, std::span<const int32_t> labels, std::span<const float> cosines);

  // Takes the partials of all ranks, N times [B], and works out the loss and the gradients of the rows.
  // FailedPrecondition, naming rank and row: a normaliser that is not finite.
  absl::Status SetPartials(const LossParams& loss, const std::vector<std::span<const ShardPartial>>& partials);

  std::span<const float> thresholds() const { return thresholds_; }
  RowGradients gradients() const { return {thresholds_, shifts_, row_scales_, label_gradients_}; }

  double loss() const { return loss_; }  // Mean over the kept rows.
  double mean_label_cosine() const { return mean_label_cosine_; }
  int64_t counted_rows() const { return counted_rows_; }
  int64_t support_vectors() const { return support_vectors_; }

 private:
  void SetGradients(const LossParams& loss, double row_weight);

  std::vector<bool> counted_;
  std::vector<bool> kept_;
  std::vector<int64_t> hardest_;  // Memory of SetHardestRows.
  std::vector<TargetLogit> targets_;
  std::vector<float> thresholds_, shifts_, row_scales_, label_gradients_;
  std::vector<RowLoss> row_losses_;
  std::vector<double> losses_;
  double loss_ = 0;
  double mean_label_cosine_ = 0;
  int64_t counted_rows_ = 0;
  int64_t support_vectors_ = 0;
};

}  // namespace shardmax
