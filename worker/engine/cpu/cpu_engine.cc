#include "worker/engine/cpu/cpu_engine.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "worker/base/aligned_buffer.h"
#include "worker/base/status.h"
#include "worker/base/thread_pool.h"
#include "worker/engine/cpu/kept_cosines.h"
#include "worker/engine/cpu/label_hits.h"
#include "worker/engine/cpu/thread_work.h"
#include "worker/engine/cpu/tile_kernels.h"
#include "worker/engine/cpu/tile_operands.h"
#include "worker/engine/cpu/tile_plan.h"
#include "worker/engine/norm.h"
#include "worker/engine/shard_state.h"

namespace shardmax {
namespace {

Upcoming AllOf(MatrixView<const float> rows) {
  return {rows.data, rows.rows * rows.cols * static_cast<int64_t>(sizeof(float))};
}

// A shift so large that e^(z - shift) is 0: of rows that add nothing.
constexpr float kSilencingShift = 1e30F;

class CpuEngine final : public Engine {
 public:
  CpuEngine(EngineOptions options, const TilePlan& plan, ShardState state, AlignedBuffer<float> inverse_norms)
      : options_(std::move(options)),
        plan_(plan),
        state_(std::move(state)),
        inverse_norms_(std::move(inverse_norms)),
        operands_(plan.tile_classes, plan.update_classes, options_.dim, OperandsFor(options_.precision)),
        kept_(options_.cosines),
        pool_(options_.threads, options_.processors) {
    for (int i = 0; i < options_.threads; ++i) works_.emplace_back(plan_, options_.dim, operands_.type());
    statuses_.resize(works_.size());
    // The first to write a page has it in the memory next to its processor.
    pool_.Run([&](int thread) { state_.Touch(PlacesOf(thread)); });
  }

  const EngineOptions& options() const override { return options_; }
  absl::Status ReadRows(const std::string& tensor, Range classes, MatrixView<float> rows) const override {
    return state_.Read(tensor, classes, rows);
  }
  absl::Status WriteRows(const std::string& tensor, Range classes, MatrixView<const float> rows) override;
  void BeginAt(int64_t steps_done) override { state_.BeginAt(steps_done); }
  absl::Status CatchUp(std::span<const int32_t> local, SkippedSteps& skipped) override;
  void LabelCosines(const EngineBatch& batch, std::span<float> cosines) override;
  absl::Status Score(const EngineBatch& batch, const ClassLogitScale& scale, std::span<const float> thresholds,
                     std::span<ShardPartial> partials) override;
  absl::Status Backward(const EngineBatch& batch, const ClassLogitScale& scale, const RowGradients& rows,
                        const UpdateRule& rule, MatrixView<float> feature_gradients) override;
  absl::Status NearestClasses(MatrixView<const float> features, std::span<float> cosines,
                              std::span<int32_t> classes) override;

 private:
  // What the backward phase of a step needs for every tile.
  struct BackwardStep {
    const ClassLogitScale& scale;
    const RowGradients& rows;
    const UpdateRule& rule;
    BackwardColumns columns;
    bool with_feature_gradients;
  };

  // Classes go by their place among those that take part: the active ones of the batch, or all of the shard.
  int64_t places() const { return active_.has_value() ? static_cast<int64_t>(active_->size()) : options_.shard.count; }
  int64_t ClassAt(int64_t place) const { return active_.has_value() ? (*active_)[place] : place; }
  // Of active classes, whose number changes, a little more than are.
  int64_t RoomForPlaces() const {
    return active_.has_value() ? std::min(options_.shard.count, places() + places() / 8 + 256) : places();
  }
  // The places that `thread` works on: whole tiles.
  Range PlacesOf(int thread) const;
  // Calls fn with every tile of the shard on the thread that it belongs to.
  absl::Status ForEachTile(bool with_feature_gradients, absl::FunctionRef<absl::Status(ThreadWork&, Range tile)> fn);
  // Takes the tile's weights and computes its products, after their inverse norms.
  absl::Status NormAndMultiply(ThreadWork& work, Range tile);
  absl::Status BackwardTile(ThreadWork& work, Range tile, const BackwardStep& step);
  void SetLabelGradients(ThreadWork& work, Range tile, std::span<const float> label_gradients);
  void UpdateRows(ThreadWork& work, Range places_now, int64_t first_of_tile, const UpdateRule& rule);
  BackwardColumns PrepareColumns(const ClassLogitScale& scale, const RowGradients& rows);
  void SumFeatureGradients(MatrixView<float> feature_gradients);
  // Copies [B] values to [P], the rest being `padding`.
  void Pad(std::span<const float> values, float padding, std::vector<float>& padded) const;
  Upcoming StateOf(Range tile);
  // Their rows, gathered for `work` if they are not all of the shard.
  absl::StatusOr<MatrixView<const float>> WeightsOf(Range tile, ThreadWork& work) const;
  // What is read after `tile`, as far as it is known.
  Upcoming WeightsAfter(Range tile) const;
  // Where rows are on disk, has it read those of the next tiles. Active classes were fetched to be caught up.
  void FetchAfter(Range tile, bool with_state) const;

  EngineOptions options_;
  TilePlan plan_;
  ShardState state_;
  std::optional<std::span<const int32_t>> active_;  // Of the batch.
  AlignedBuffer<float> inverse_norms_;              // By place, of the last Score
  TileOperands operands_;
  KeptCosines kept_;
  ThreadPool pool_;
  std::vector<ThreadWork> works_;  // One a thread.
  std::vector<absl::Status> statuses_;
  LabelHits hits_;
  std::vector<float> label_cosines_;                                              // [B], of the last LabelCosines
  std::vector<float> thresholds_, shifts_, support_vector_offsets_, row_scales_;  // [P]
};

Range CpuEngine::PlacesOf(int thread) const {
  const int64_t tiles = (places() + plan_.tile_classes - 1) / plan_.tile_classes;
  const Range mine = BalancedPart(tiles, thread, options_.threads);
  const int64_t first = std::min(mine.first * plan_.tile_classes, places());
  return {first, std::min(mine.end() * plan_.tile_classes, places()) - first};
}

absl::StatusOr<MatrixView<const float>> CpuEngine::WeightsOf(Range tile, ThreadWork& work) const {
  if (active_.has_value()) return work.GatherRows(state_.weight(), active_->subspan(tile.first, tile.count));
  return state_.weight().slice(tile.first, tile.count);
}

Upcoming CpuEngine::WeightsAfter(Range tile) const {
  if (active_.has_value()) return {};
  return AllOf(state_.weight().slice(tile.end(), std::min(plan_.tile_classes, places() - tile.end())));
}

void CpuEngine::FetchAfter(Range tile, bool with_state) const {
  if (!state_.on_disk() || active_.has_value()) return;
  state_.FetchAfter(tile, with_state);
}

Upcoming CpuEngine::StateOf(Range tile) {
  const StateRow row = state_.StateOf(0, tile.first);
  if (active_.has_value() || row.empty()) return {};
  const void* data = row.bfloat16 != nullptr ? static_cast<const void*>(row.bfloat16) : row.float32;
  return {data, tile.count * state_.state_row_bytes()};
}

absl::Status CpuEngine::WriteRows(const std::string& tensor, Range classes, MatrixView<const float> rows) {
  SHARDMAX_RETURN_IF_ERROR(state_.CheckWrite(tensor, classes, rows));
  // On disk each page is a fault, which costs more than the copy.
  pool_.Run([&](int thread) {
    const Range part = BalancedPart(rows.rows, thread, options_.threads);
    statuses_[thread] =
        state_.Write(tensor, {classes.first + part.first, part.count}, rows.slice(part.first, part.count));
  });
  for (const absl::Status& status : statuses_) SHARDMAX_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

absl::Status CpuEngine::CatchUp(std::span<const int32_t> local, SkippedSteps& skipped) {
  constexpr int64_t kRowsAhead = 4;
  // Of those on disk: so many reads keep it busy.
  constexpr int64_t kRowsFetched = 1024;
  state_.Reach(local, skipped);
  pool_.ForEachPart(static_cast<int64_t>(local.size()), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t k = local[i];
      if (state_.on_disk() && (i - begin) % kRowsFetched == 0) {
        const int64_t first = i == begin ? i : std::min(i + kRowsFetched, end);
        state_.Fetch(local.subspan(first, std::min(i + 2 * kRowsFetched, end) - first));
      }
      if (i + kRowsAhead < end) Prefetch(std::as_const(state_).weight().row(local[i + kRowsAhead]));
      if (const DecayMap* map = state_.CatchUp(k, skipped)) {
        CatchUpRow(*map, {.gradients = nullptr,
                          .along = 0,
                          .inverse_norm = 0,
                          .n = options_.dim,
                          .weights = state_.weight().row(k).data(),
                          .first = state_.StateOf(0, k),
                          .second = {},
                          .noise = RowNoise(skipped.noise(), options_.shard.first + k)});
      }
    }
  });
  return absl::OkStatus();
}

absl::Status CpuEngine::ForEachTile(bool with_feature_gradients,
                                    absl::FunctionRef<absl::Status(ThreadWork&, Range tile)> fn) {
  pool_.Run([&](int thread) {
    ThreadWork& work = works_[thread];
    absl::Status& status = statuses_[thread];
    status = work.Begin(operands_, with_feature_gradients);
    const Range mine = PlacesOf(thread);
    if (state_.on_disk() && !active_.has_value()) state_.Fetch({mine.first, state_.rows_ahead()}, true);
    for (int64_t first = mine.first; first < mine.end() && status.ok(); first += plan_.tile_classes) {
      status = fn(work, {first, std::min(plan_.tile_classes, mine.end() - first)});
    }
  });
  for (const absl::Status& status : statuses_) SHARDMAX_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

void CpuEngine::Pad(std::span<const float> values, float padding, std::vector<float>& padded) const {
  padded.assign(static_cast<size_t>(operands_.padded_rows()), padding);
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

absl::Status CpuEngine::Score(const EngineBatch& batch, const ClassLogitScale& scale, std::span<const float> thresholds,
                              std::span<ShardPartial> partials) {
  SHARDMAX_RETURN_IF_ERROR(operands_.Prepare(batch.features, true, false));
  active_ = batch.active;
  SHARDMAX_RETURN_IF_ERROR(kept_.Reserve(RoomForPlaces(), operands_.padded_rows()));
  hits_.Find(batch.labels, options_.shard, active_);
  Pad(thresholds, std::numeric_limits<float>::infinity(), thresholds_);
  kept_.SetThresholds(thresholds_);
  SHARDMAX_RETURN_IF_ERROR(ForEachTile(false, [&](ThreadWork& work, Range tile) -> absl::Status {
    SHARDMAX_RETURN_IF_ERROR(NormAndMultiply(work, tile));
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

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> MakeCpuEngine(const EngineOptions& options) {
  SHARDMAX_ASSIGN_OR_RETURN(ShardState state, ShardState::Allocate(options.shard, options.dim, options.optimizer,
                                                                   options.sample_rate < 1, options.storage_folder));
  SHARDMAX_ASSIGN_OR_RETURN(auto inverse_norms, AlignedBuffer<float>::Allocate(options.shard.count));
  const TilePlan plan = PlanTiles(options, OperandsFor(options.precision), SecondLevelCacheBytes());
  return std::make_unique<CpuEngine>(options, plan, std::move(state), std::move(inverse_norms));
}

}  // namespace shardmax
