#include "worker/engine/cpu/cpu_engine.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "worker/base/aligned_buffer.h"
#include "worker/base/status.h"
#include "worker/base/thread_pool.h"
#include "worker/engine/cpu/thread_work.h"
#include "worker/engine/cpu/tile_kernels.h"
#include "worker/engine/norm.h"
#include "worker/engine/shard_state.h"

namespace shardmax {
namespace {

// A tile's weights, cosines and gradients should stay in the second-level cache of a core together.
constexpr int64_t kTileBytes = int64_t{3} << 19;
constexpr int64_t kMinTileClasses = 64;
constexpr int64_t kMaxTileClasses = 1024;
constexpr int64_t kAssumedBatch = 256;

int64_t TileClasses(const EngineOptions& options) {
  const int64_t bytes_per_class = 4 * (2 * options.dim + kAssumedBatch);
  const int64_t fitting = std::clamp(kTileBytes / bytes_per_class, kMinTileClasses, kMaxTileClasses);
  const int64_t per_thread = (options.shard.count + options.threads - 1) / options.threads;
  return std::max<int64_t>(1, std::min(fitting, per_thread));
}

int64_t PaddedRows(int64_t rows) {
  return (rows + kColumnAlignment - 1) / kColumnAlignment * kColumnAlignment;
}

class CpuEngine final : public Engine {
 public:
  CpuEngine(EngineOptions options, ShardState state, AlignedBuffer<float> inverse_norms)
      : options_(std::move(options)),
        state_(std::move(state)),
        inverse_norms_(std::move(inverse_norms)),
        tile_classes_(TileClasses(options_)),
        pool_(options_.threads, options_.processors) {
    for (int i = 0; i < options_.threads; ++i) works_.emplace_back(tile_classes_, options_.dim, options_.precision);
  }

  const EngineOptions& options() const override { return options_; }
  absl::Status ReadRows(const std::string& tensor, Range classes, MatrixView<float> rows) const override {
    return state_.Read(tensor, classes, rows);
  }
  absl::Status WriteRows(const std::string& tensor, Range classes, MatrixView<const float> rows) override {
    return state_.Write(tensor, classes, rows);
  }
  void LabelCosines(const EngineBatch& batch, std::span<float> cosines) override;
  absl::Status Score(const EngineBatch& batch, const ClassLogitScale& scale, std::span<const float> thresholds,
                     std::span<ShardPartial> partials) override;
  absl::Status Backward(const EngineBatch& batch, const ClassLogitScale& scale, const RowGradients& rows,
                        const UpdateRule& rule, MatrixView<float> feature_gradients) override;
  absl::Status NearestClasses(MatrixView<const float> features, std::span<float> cosines,
                              std::span<int32_t> classes) override;

 private:
  // A row whose label is in the shard.
  struct LabelHit {
    int64_t local_class;
    int64_t row;
  };
  // A tile with its cosines computed: classes [first, first + cosines().rows) of the shard.
  using TileFn = std::function<absl::Status(ThreadWork& work, int64_t first)>;

  // Prepares the operands of `features` in the engine's precision.
  absl::StatusOr<TileOperands> Operands(MatrixView<const float> features);
  // Computes the cosines of every tile of the shard and calls fn on each, tiles spread evenly over the threads.
  // With `renew_norms`, the inverse norms of the weights are computed and checked first.
  absl::Status ForEachTile(const TileOperands& operands, bool with_feature_gradients, bool renew_norms,
                           const TileFn& fn);
  absl::Status RunTile(ThreadWork& work, Range tile, const TileOperands& operands, bool renew_norms, const TileFn& fn);
  // The hits of classes [first, end) of the shard, from label_hits_.
  std::span<const LabelHit> HitsIn(int64_t first, int64_t end) const;
  void FindLabelHits(std::span<const int32_t> labels);
  // Copies [B] values to [P], the rest being `padding`.
  static void Pad(std::span<const float> values, float padding, std::vector<float>& padded);
  void UpdateTile(ThreadWork& work, int64_t first, const UpdateRule& rule);

  EngineOptions options_;
  ShardState state_;
  AlignedBuffer<float> inverse_norms_;  // [C_r], of the last Score
  int64_t tile_classes_;
  ThreadPool pool_;
  std::vector<ThreadWork> works_;     // One a thread.
  std::vector<LabelHit> label_hits_;  // Ascending by class.
  AlignedBuffer<uint16_t> bfloat16_features_;
  std::vector<float> thresholds_, shifts_, support_vector_offsets_, row_scales_;  // [P]
};

absl::StatusOr<TileOperands> CpuEngine::Operands(MatrixView<const float> features) {
  TileOperands operands{.features = features.data, .rows = features.rows, .padded_rows = PaddedRows(features.rows)};
  if (options_.precision == Precision::kBfloat16) {
    const int64_t size = features.rows * features.cols;
    if (bfloat16_features_.size() < size) {
      SHARDMAX_ASSIGN_OR_RETURN(bfloat16_features_, AlignedBuffer<uint16_t>::Allocate(size));
    }
    ToBfloat16(features.data, size, bfloat16_features_.data());
    operands.features = bfloat16_features_.data();
  }
  return operands;
}

absl::Status CpuEngine::RunTile(ThreadWork& work, Range tile, const TileOperands& operands, bool renew_norms,
                                const TileFn& fn) {
  const MatrixView<const float> weights = std::as_const(state_).weight().slice(tile.first, tile.count);
  float* inverse_norms = inverse_norms_.data() + tile.first;
  if (renew_norms) {
    InverseNorms(weights, inverse_norms);
    SHARDMAX_RETURN_IF_ERROR(
        CheckNorms<float>({inverse_norms, static_cast<size_t>(tile.count)}, options_.shard.first + tile.first));
  }
  SHARDMAX_RETURN_IF_ERROR(work.ComputeCosines(weights, inverse_norms, operands));
  return fn(work, tile.first);
}

absl::Status CpuEngine::ForEachTile(const TileOperands& operands, bool with_feature_gradients, bool renew_norms,
                                    const TileFn& fn) {
  const int64_t tiles = (options_.shard.count + tile_classes_ - 1) / tile_classes_;
  std::vector<absl::Status> statuses(static_cast<size_t>(options_.threads));
  pool_.Run([&](int thread) {
    ThreadWork& work = works_[thread];
    absl::Status& status = statuses[thread];
    status = work.Begin(operands.rows, operands.padded_rows, with_feature_gradients);
    const Range mine = BalancedPart(tiles, thread, options_.threads);
    for (int64_t i = mine.first; i < mine.end() && status.ok(); ++i) {
      const int64_t first = i * tile_classes_;
      const int64_t count = std::min(tile_classes_, options_.shard.count - first);
      status = RunTile(work, {first, count}, operands, renew_norms, fn);
    }
  });
  for (const absl::Status& status : statuses) SHARDMAX_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

void CpuEngine::FindLabelHits(std::span<const int32_t> labels) {
  label_hits_.clear();
  for (size_t b = 0; b < labels.size(); ++b) {
    if (options_.shard.contains(labels[b])) {
      label_hits_.push_back({labels[b] - options_.shard.first, static_cast<int64_t>(b)});
    }
  }
  std::sort(label_hits_.begin(), label_hits_.end(), [](const LabelHit& a, const LabelHit& b) {
    return a.local_class != b.local_class ? a.local_class < b.local_class : a.row < b.row;
  });
}

std::span<const CpuEngine::LabelHit> CpuEngine::HitsIn(int64_t first, int64_t end) const {
  const auto before = [](const LabelHit& hit, int64_t local_class) { return hit.local_class < local_class; };
  const auto begin = std::lower_bound(label_hits_.begin(), label_hits_.end(), first, before);
  return {begin, std::lower_bound(begin, label_hits_.end(), end, before)};
}

void CpuEngine::Pad(std::span<const float> values, float padding, std::vector<float>& padded) {
  padded.assign(static_cast<size_t>(PaddedRows(static_cast<int64_t>(values.size()))), padding);
  std::copy(values.begin(), values.end(), padded.begin());
}

void CpuEngine::LabelCosines(const EngineBatch& batch, std::span<float> cosines) {
  for (int64_t b = 0; b < batch.features.rows; ++b) {
    cosines[b] = 0;
    if (!options_.shard.contains(batch.labels[b])) continue;
    const std::span<const float> x = batch.features.row(b);
    const std::span<const float> w = std::as_const(state_).weight().row(batch.labels[b] - options_.shard.first);
    double dot = 0;
    for (size_t i = 0; i < x.size(); ++i) dot += static_cast<double>(x[i]) * w[i];
    cosines[b] = static_cast<float>(dot * InverseNorm(w));
  }
}

absl::Status CpuEngine::Score(const EngineBatch& batch, const ClassLogitScale& scale, std::span<const float> thresholds,
                              std::span<ShardPartial> partials) {
  SHARDMAX_ASSIGN_OR_RETURN(const TileOperands operands, Operands(batch.features));
  FindLabelHits(batch.labels);
  Pad(thresholds, std::numeric_limits<float>::infinity(), thresholds_);
  SHARDMAX_RETURN_IF_ERROR(ForEachTile(operands, false, true, [&](ThreadWork& work, int64_t first) {
    const MatrixView<float> cosines = work.cosines();
    for (const LabelHit& hit : HitsIn(first, first + cosines.rows)) {
      cosines.row(hit.local_class - first)[hit.row] = kExcludedCosine;
    }
    AccumulateNormalizer(cosines, scale, thresholds_.data(), work.running());
    return absl::OkStatus();
  }));
  for (int64_t b = 0; b < operands.rows; ++b) {
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

void CpuEngine::UpdateTile(ThreadWork& work, int64_t first, const UpdateRule& rule) {
  const size_t states = rule.params.StateNames().size();
  const MatrixView<float> gradients = work.weight_gradients();
  for (int64_t k = 0; k < gradients.rows; ++k) {
    const int64_t row = first + k;
    UpdateRow(rule, gradients.row(k).data(), work.along_weights()[k], inverse_norms_.data()[row], options_.dim,
              state_.weight().row(row).data(), states > 0 ? state_.state(0).row(row).data() : nullptr,
              states > 1 ? state_.state(1).row(row).data() : nullptr);
  }
}

absl::Status CpuEngine::Backward(const EngineBatch& batch, const ClassLogitScale& scale, const RowGradients& rows,
                                 const UpdateRule& rule, MatrixView<float> feature_gradients) {
  SHARDMAX_ASSIGN_OR_RETURN(const TileOperands operands, Operands(batch.features));
  FindLabelHits(batch.labels);
  Pad(rows.thresholds, std::numeric_limits<float>::infinity(), thresholds_);
  Pad(rows.shifts, 0, shifts_);
  Pad(rows.row_scales, 0, row_scales_);
  support_vector_offsets_.resize(shifts_.size());
  std::transform(shifts_.begin(), shifts_.end(), support_vector_offsets_.begin(), [&](float shift) {
    return static_cast<float>(scale.support_vector_offset - static_cast<double>(shift));
  });
  const BackwardColumns columns = {thresholds_.data(), shifts_.data(), support_vector_offsets_.data(),
                                   row_scales_.data()};
  const bool with_feature_gradients = feature_gradients.data != nullptr;
  SHARDMAX_RETURN_IF_ERROR(
      ForEachTile(operands, with_feature_gradients, false, [&](ThreadWork& work, int64_t first) -> absl::Status {
        const MatrixView<float> tile = work.cosines();
        const float* inverse_norms = inverse_norms_.data() + first;
        std::vector<float> label_cosines;
        const auto hits = HitsIn(first, first + tile.rows);
        for (const LabelHit& hit : hits) {
          label_cosines.push_back(std::exchange(tile.row(hit.local_class - first)[hit.row], kExcludedCosine));
        }
        CosineGradients(tile, scale, columns, inverse_norms, work.along_weights());
        for (size_t i = 0; i < hits.size(); ++i) {
          const int64_t k = hits[i].local_class - first;
          const float gradient = rows.label_gradients[hits[i].row] * inverse_norms[k];
          tile.row(k)[hits[i].row] = gradient;
          work.along_weights()[k] += gradient * label_cosines[i];
        }
        SHARDMAX_RETURN_IF_ERROR(work.MultiplyGradients(operands, with_feature_gradients));
        UpdateTile(work, first, rule);
        return absl::OkStatus();
      }));
  if (!with_feature_gradients) return absl::OkStatus();
  pool_.ForEachPart(feature_gradients.rows * feature_gradients.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float sum = 0;
      for (ThreadWork& work : works_) sum += work.feature_gradients().data[i];
      feature_gradients.data[i] = sum;
    }
  });
  return absl::OkStatus();
}

absl::Status CpuEngine::NearestClasses(MatrixView<const float> features, std::span<float> cosines,
                                       std::span<int32_t> classes) {
  SHARDMAX_ASSIGN_OR_RETURN(const TileOperands operands, Operands(features));
  SHARDMAX_RETURN_IF_ERROR(ForEachTile(operands, false, true, [&](ThreadWork& work, int64_t first) {
    UpdateNearest(work.cosines(), static_cast<int32_t>(options_.shard.first + first), work.nearest_cosines(),
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

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> MakeCpuEngine(const EngineOptions& options) {
  if (options.cosines != CosineStorage::kRecompute) {
    return absl::UnimplementedError("the cpu engine keeps no cosines yet: only RECOMPUTE");
  }
  SHARDMAX_ASSIGN_OR_RETURN(ShardState state, ShardState::Allocate(options.shard, options.dim, options.optimizer));
  SHARDMAX_ASSIGN_OR_RETURN(auto inverse_norms, AlignedBuffer<float>::Allocate(options.shard.count));
  return std::make_unique<CpuEngine>(options, std::move(state), std::move(inverse_norms));
}

}  // namespace shardmax
