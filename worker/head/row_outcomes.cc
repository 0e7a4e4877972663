#include "worker/head/row_outcomes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "worker/base/status.h"
#include "worker/loss/hard_mining.h"
#include "worker/loss/row_gradient.h"

namespace shardmax {

absl::Status RowOutcomes::SetLabelCosines(const LossParams& loss, std::span<const int32_t> labels,
                                          std::span<const float> cosines) {
  const size_t rows = labels.size();
  counted_.assign(rows, false);
  targets_.assign(rows, TargetLogit());
  thresholds_.assign(rows, std::numeric_limits<float>::infinity());
  counted_rows_ = 0;
  double sum = 0;
  for (size_t b = 0; b < rows; ++b) {
    if (labels[b] < 0) continue;
    if (!std::isfinite(cosines[b])) {
      return absl::FailedPreconditionError(fmt::format(
          "row {} of the batch: the cosine with its class {} is not finite; the weights have diverged, lower "
          "the learning rate",
          b, labels[b]));
    }
    counted_[b] = true;
    ++counted_rows_;
    sum += static_cast<double>(cosines[b]);
    targets_[b] = EvaluateTargetLogit(loss, static_cast<double>(cosines[b]));
    thresholds_[b] = static_cast<float>(targets_[b].value);
  }
  mean_label_cosine_ = counted_rows_ > 0 ? sum / static_cast<double>(counted_rows_) : 0;
  return absl::OkStatus();
}

absl::Status RowOutcomes::SetPartials(const LossParams& loss,
                                      const std::vector<std::span<const ShardPartial>>& partials) {
  const size_t rows = counted_.size();
  row_losses_.assign(rows, RowLoss());
  losses_.assign(rows, 0);
  support_vectors_ = 0;
  for (size_t b = 0; b < rows; ++b) {
    if (!counted_[b]) continue;
    ShardPartial others;
    for (size_t rank = 0; rank < partials.size(); ++rank) {
      const ShardPartial& partial = partials[rank][b];
      if (!std::isfinite(partial.sum_exp) || std::isnan(partial.max_logit)) {
        return absl::FailedPreconditionError(fmt::format(
            "rank {}: the normaliser of row {} of the batch is not finite; the weights have diverged, lower "
            "the learning rate",
            rank, b));
      }
      others = Merge(others, partial);
    }
    support_vectors_ += others.support_vectors;
    row_losses_[b] = EvaluateRowLoss(others, loss.scale * targets_[b].value, loss.gamma);
    losses_[b] = row_losses_[b].loss;
  }
  SetHardestRows(losses_, counted_, loss.keep, hardest_, kept_);
  const auto kept_rows = std::count(kept_.begin(), kept_.end(), true);
  loss_ = 0;
  for (size_t b = 0; b < rows; ++b) loss_ += kept_[b] ? losses_[b] : 0;
  if (kept_rows > 0) loss_ /= static_cast<double>(kept_rows);
  SetGradients(loss, kept_rows > 0 ? 1 / static_cast<double>(kept_rows) : 0);
  return absl::OkStatus();
}

void RowOutcomes::SetGradients(const LossParams& loss, double row_weight) {
  const size_t rows = counted_.size();
  shifts_.assign(rows, 0);
  row_scales_.assign(rows, 0);
  label_gradients_.assign(rows, 0);
  for (size_t b = 0; b < rows; ++b) {
    const RowGradient row = EvaluateRowGradient(row_losses_[b], targets_[b], loss.scale, kept_[b] ? row_weight : 0);
    shifts_[b] = row.shift;
    row_scales_[b] = row.row_scale;
    label_gradients_[b] = row.label_gradient;
  }
}

}  // namespace shardmax
