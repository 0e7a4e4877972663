// The phases that score: label cosines, the normaliser's partials, nearest classes.
#include <algorithm>
#include <limits>
#include <utility>

#include "worker/base/status.h"
#include "worker/engine/cpu/cpu_engine_class.h"
#include "worker/engine/cpu/tile_kernels.h"
#include "worker/engine/norm.h"

namespace shardmax {

void CpuEngine::LabelCosines(const EngineBatch& batch, std::span<float> cosines) {
  prepared_.reset();  // Of a step that ended early.
  for (int64_t b = 0; b < batch.features.rows; ++b) {
    cosines[b] = 0;
    if (!options_.shard.contains(batch.labels[b])) continue;
    const std::span<const float> x = batch.features.row(b);
    const std::span<const float> w = std::as_const(state_).weight().row(batch.labels[b] - options_.shard.first);
    double dot = 0;
    for (size_t i = 0; i < x.size(); ++i) dot += static_cast<double>(x[i]) * w[i];
    cosines[b] = static_cast<float>(dot * InverseNorm(w));
  }
  label_cosines_.assign(cosines.begin(), cosines.end());
}

absl::Status CpuEngine::NormAndMultiply(ThreadWork& work, Range tile) {
  float* inverse_norms = inverse_norms_.data() + tile.first;
  FetchAfter(tile, false);
  SHARDMAX_ASSIGN_OR_RETURN(const MatrixView<const float> weights, WeightsOf(tile, work));
  work.SetWeights(weights, inverse_norms);
  SHARDMAX_RETURN_IF_ERROR(CheckNormsOf(std::span<const float>(inverse_norms, static_cast<size_t>(tile.count)),
                                        [&](int64_t k) { return options_.shard.first + ClassAt(tile.first + k); }));
  return work.ComputeProducts(inverse_norms, operands_);
}

absl::Status CpuEngine::TakeBatch(const EngineBatch& batch) {
  SHARDMAX_RETURN_IF_ERROR(operands_.Prepare(batch.features, true, false));
  active_ = batch.active;
  SHARDMAX_RETURN_IF_ERROR(kept_.Reserve(RoomForPlaces(), operands_.padded_rows()));
  hits_.Find(batch.labels, options_.shard, active_);
  return absl::OkStatus();
}

void CpuEngine::Prepare(const EngineBatch& batch) {
  prepared_ = TakeBatch(batch);
  if (!prepared_->ok()) return;
  pool_.Run([&](int thread) {
    statuses_[thread] = works_[thread].Begin(operands_, false);
    FetchFirst(PlacesOf(thread));
    const Range tile = FirstTileOf(thread);
    if (statuses_[thread].ok() && tile.count > 0) statuses_[thread] = NormAndMultiply(works_[thread], tile);
  });
  for (const absl::Status& status : statuses_) prepared_->Update(status);
}

absl::Status CpuEngine::Score(const EngineBatch& batch, const ClassLogitScale& scale, std::span<const float> thresholds,
                              std::span<ShardPartial> partials) {
  const bool prepared = prepared_.has_value();
  SHARDMAX_RETURN_IF_ERROR(prepared ? *std::exchange(prepared_, std::nullopt) : TakeBatch(batch));
  Pad(thresholds, std::numeric_limits<float>::infinity(), thresholds_);
  kept_.SetThresholds(thresholds_);
  SHARDMAX_RETURN_IF_ERROR(ForEachTile(false, [&](ThreadWork& work, Range tile) -> absl::Status {
    const auto thread = static_cast<int>(&work - works_.data());
    if (!prepared || tile.first != FirstTileOf(thread).first) SHARDMAX_RETURN_IF_ERROR(NormAndMultiply(work, tile));
    for (const LabelHit& hit : hits_.In(tile)) {
      work.ScaleRow(hit.local_class - tile.first);
      work.products().row(hit.local_class - tile.first)[hit.row] = kExcludedCosine;
    }
    AccumulateNormalizer(work.products(), work.factors(), scale, thresholds_.data(), work.running(),
                         kept_.Tile(tile.first), WeightsAfter(tile));
    return absl::OkStatus();
  }));
  for (int64_t b = 0; b < operands_.rows(); ++b) {
    ShardPartial partial;
    for (ThreadWork& work : works_) {
      const RunningNormalizer running = work.running();
      partial = Merge(partial, {.sum_exp = running.sums[b],
                                .max_logit = running.max_logits[b],
                                .support_vectors = running.support_vectors[b]});
    }
    // Where nothing but the stand-in of the label was scored, the maximum is not that of a class.
    partials[b] = partial.sum_exp == 0 ? ShardPartial() : partial;
  }
  return absl::OkStatus();
}

absl::Status CpuEngine::NearestClasses(MatrixView<const float> features, std::span<float> cosines,
                                       std::span<int32_t> classes) {
  SHARDMAX_RETURN_IF_ERROR(operands_.Prepare(features, true, false));
  active_.reset();
  SHARDMAX_RETURN_IF_ERROR(ForEachTile(false, [&](ThreadWork& work, Range tile) -> absl::Status {
    SHARDMAX_RETURN_IF_ERROR(NormAndMultiply(work, tile));
    ScaleRows(work.products(), work.factors());
    UpdateNearest(work.products(), static_cast<int32_t>(options_.shard.first + tile.first), work.nearest_cosines(),
                  work.nearest_classes());
    return absl::OkStatus();
  }));
  for (int64_t b = 0; b < features.rows; ++b) {
    cosines[b] = -std::numeric_limits<float>::infinity();
    classes[b] = -1;  // Stays only if every cosine is NaN.
    for (ThreadWork& work : works_) {
      if (work.nearest_cosines()[b] <= cosines[b]) continue;
      cosines[b] = work.nearest_cosines()[b];
      classes[b] = work.nearest_classes()[b];
    }
  }
  return absl::OkStatus();
}

}  // namespace shardmax
