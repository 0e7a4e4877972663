#include "worker/engine/cpu/cpu_engine.h"

#include <algorithm>
#include <utility>

#include "worker/base/status.h"
#include "worker/engine/cpu/cpu_engine_class.h"
#include "worker/engine/cpu/tile_kernels.h"

namespace shardmax {
namespace {

Upcoming AllOf(MatrixView<const float> rows) {
  return {rows.data, rows.rows * rows.cols * static_cast<int64_t>(sizeof(float))};
}

}  // namespace

CpuEngine::CpuEngine(EngineOptions options, const TilePlan& plan, ShardState state, AlignedBuffer<float> inverse_norms)
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

Range CpuEngine::PlacesOf(int thread) const {
  const int64_t tiles = (places() + plan_.tile_classes - 1) / plan_.tile_classes;
  const Range mine = BalancedPart(tiles, thread, options_.threads);
  const int64_t first = std::min(mine.first * plan_.tile_classes, places());
  return {first, std::min(mine.end() * plan_.tile_classes, places()) - first};
}

Range CpuEngine::FirstTileOf(int thread) const {
  const Range mine = PlacesOf(thread);
  return {mine.first, std::min(plan_.tile_classes, mine.count)};
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

void CpuEngine::FetchFirst(Range places) const {
  if (state_.on_disk() && !active_.has_value()) state_.Fetch({places.first, state_.rows_ahead()}, true);
}

absl::Status CpuEngine::ForEachTile(bool with_feature_gradients,
                                    absl::FunctionRef<absl::Status(ThreadWork&, Range tile)> fn) {
  pool_.Run([&](int thread) {
    ThreadWork& work = works_[thread];
    absl::Status& status = statuses_[thread];
    status = work.Begin(operands_, with_feature_gradients);
    const Range mine = PlacesOf(thread);
    FetchFirst(mine);
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

absl::StatusOr<std::unique_ptr<Engine>> MakeCpuEngine(const EngineOptions& options) {
  SHARDMAX_ASSIGN_OR_RETURN(ShardState state, ShardState::Allocate(options.shard, options.dim, options.optimizer,
                                                                   options.sample_rate < 1, options.storage_folder));
  SHARDMAX_ASSIGN_OR_RETURN(auto inverse_norms, AlignedBuffer<float>::Allocate(options.shard.count));
  const TilePlan plan = PlanTiles(options, OperandsFor(options.precision), SecondLevelCacheBytes());
  return std::make_unique<CpuEngine>(options, plan, std::move(state), std::move(inverse_norms));
}

}  // namespace shardmax
