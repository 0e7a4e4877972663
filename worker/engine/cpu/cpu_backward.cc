// The phase that updates the weights.
#include <algorithm>
#include <limits>
#include <utility>

#include "worker/base/status.h"
#include "worker/engine/cpu/cpu_engine_class.h"
#include "worker/engine/cpu/tile_kernels.h"

namespace shardmax {
namespace {

// A shift so large that e^(z - shift) is 0: of rows that add nothing.
constexpr float kSilencingShift = 1e30F;

}  // namespace

BackwardColumns CpuEngine::PrepareColumns(const ClassLogitScale& scale, const RowGradients& rows) {
  Pad(rows.thresholds, std::numeric_limits<float>::infinity(), thresholds_);
  Pad(rows.shifts, kSilencingShift, shifts_);
  Pad(rows.row_scales, 0, row_scales_);
  kept_.SetThresholds(thresholds_);
  for (size_t b = 0; b < rows.row_scales.size(); ++b) {
    // A weight of 0 times e^z without its shift would be NaN where e^z is too large.
    if (row_scales_[b] == 0) shifts_[b] = kSilencingShift;
  }
  support_vector_offsets_.resize(shifts_.size());
  std::transform(shifts_.begin(), shifts_.end(), support_vector_offsets_.begin(), [&](float shift) {
    return static_cast<float>(scale.support_vector_offset - static_cast<double>(shift));
  });
  return {kept_.thresholds(), shifts_.data(), support_vector_offsets_.data(), row_scales_.data()};
}

void CpuEngine::SetLabelGradients(ThreadWork& work, Range tile, std::span<const float> label_gradients) {
  for (const LabelHit& hit : hits_.In(tile)) {
    const int64_t k = hit.local_class - tile.first;
    const float gradient = label_gradients[hit.row] * inverse_norms_.data()[hit.local_class];
    // What stood in for the label was no cosine and got no gradient; but int16 cannot hold such a thing.
    if (const int16_t* kept = kept_.Tile(hit.local_class).int16; kept != nullptr) {
      work.along_weights()[k] -= work.GradientAt(k, hit.row) * static_cast<float>(kept[hit.row]) * kInt16Step;
    }
    work.SetGradient(k, hit.row, gradient);
    work.along_weights()[k] += gradient * label_cosines_[hit.row];
  }
}

void CpuEngine::UpdateRows(ThreadWork& work, Range places_now, int64_t first_of_tile, const UpdateRule& rule) {
  for (int64_t k = 0; k < places_now.count; ++k) {
    const int64_t place = places_now.first + k;
    const int64_t local_class = ClassAt(place);
    if (place + plan_.tile_classes < places()) {
      Prefetch(std::as_const(state_).weight().row(ClassAt(place + plan_.tile_classes)));
    }
    UpdateRow(rule, {.gradients = work.weight_gradients() + k * options_.dim,
                     .along = work.along_weights()[place - first_of_tile],
                     .inverse_norm = inverse_norms_.data()[place],
                     .n = options_.dim,
                     .weights = state_.weight().row(local_class).data(),
                     .first = state_.StateOf(0, local_class),
                     .second = state_.StateOf(1, local_class),
                     .noise = RowNoise(rule.noise, options_.shard.first + local_class)});
    state_.CountStep(local_class);
  }
}

absl::Status CpuEngine::BackwardTile(ThreadWork& work, Range tile, const BackwardStep& step) {
  const float* inverse_norms = inverse_norms_.data() + tile.first;
  FetchAfter(tile, true);
  SHARDMAX_ASSIGN_OR_RETURN(const MatrixView<const float> weights, WeightsOf(tile, work));
  work.SetWeights(weights, nullptr);
  if (step.with_feature_gradients) SHARDMAX_RETURN_IF_ERROR(work.PackWeights(operands_, !kept_.keeps()));
  TileCosines cosines = {.kept = kept_.Tile(tile.first)};
  if (!kept_.keeps()) {
    SHARDMAX_RETURN_IF_ERROR(work.ComputeProducts(inverse_norms, operands_));
    for (const LabelHit& hit : hits_.In(tile)) {
      work.ScaleRow(hit.local_class - tile.first);
      work.products().row(hit.local_class - tile.first)[hit.row] = kExcludedCosine;
    }
    cosines.products = work.products().data;
    cosines.factors = work.factors();
  }
  CosineGradients(tile.count, operands_.padded_rows(), cosines, step.scale, step.columns, inverse_norms,
                  work.gradients(), work.along_weights(), StateOf(tile));
  SetLabelGradients(work, tile, step.rows.label_gradients);
  if (step.with_feature_gradients) SHARDMAX_RETURN_IF_ERROR(work.AddFeatureGradients(operands_));
  for (int64_t first = 0; first < tile.count; first += plan_.update_classes) {
    const int64_t count = std::min(plan_.update_classes, tile.count - first);
    SHARDMAX_RETURN_IF_ERROR(work.MultiplyWeightGradients(first, count, operands_));
    UpdateRows(work, {tile.first + first, count}, tile.first, step.rule);
  }
  return absl::OkStatus();
}

absl::Status CpuEngine::Backward(const EngineBatch& batch, const ClassLogitScale& scale, const RowGradients& rows,
                                 const UpdateRule& rule, MatrixView<float> feature_gradients) {
  SHARDMAX_RETURN_IF_ERROR(operands_.Prepare(batch.features, !kept_.keeps(), true));
  active_ = batch.active;
  hits_.Find(batch.labels, options_.shard, active_);
  const BackwardStep step = {.scale = scale,
                             .rows = rows,
                             .rule = rule,
                             .columns = PrepareColumns(scale, rows),
                             .with_feature_gradients = feature_gradients.data != nullptr};
  SHARDMAX_RETURN_IF_ERROR(ForEachTile(step.with_feature_gradients,
                                       [&](ThreadWork& work, Range tile) { return BackwardTile(work, tile, step); }));
  if (step.with_feature_gradients) SumFeatureGradients(feature_gradients);
  return absl::OkStatus();
}

void CpuEngine::SumFeatureGradients(MatrixView<float> feature_gradients) {
  pool_.ForEachPart(feature_gradients.rows * feature_gradients.cols, [&](int64_t begin, int64_t end) {
    std::copy(works_[0].feature_gradients() + begin, works_[0].feature_gradients() + end,
              feature_gradients.data + begin);
    for (size_t i = 1; i < works_.size(); ++i) {
      const float* part = works_[i].feature_gradients();
      for (int64_t j = begin; j < end; ++j) feature_gradients.data[j] += part[j];
    }
  });
}

}  // namespace shardmax
