// The class behind MakeCpuEngine. For its sources only: cpu_engine.cc has the shard and its tiles, cpu_scores.cc and
// cpu_backward.cc the phases.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "worker/base/aligned_buffer.h"
#include "worker/base/thread_pool.h"
#include "worker/engine/cpu/kept_cosines.h"
#include "worker/engine/cpu/label_hits.h"
#include "worker/engine/cpu/thread_work.h"
#include "worker/engine/cpu/tile_operands.h"
#include "worker/engine/cpu/tile_plan.h"
#include "worker/engine/engine.h"
#include "worker/engine/shard_state.h"

namespace shardmax {

class CpuEngine final : public Engine {
 public:
  CpuEngine(EngineOptions options, const TilePlan& plan, ShardState state, AlignedBuffer<float> inverse_norms);

  const EngineOptions& options() const override { return options_; }
  absl::Status ReadRows(const std::string& tensor, Range classes, MatrixView<float> rows) const override {
    return state_.Read(tensor, classes, rows);
  }
  absl::Status WriteRows(const std::string& tensor, Range classes, MatrixView<const float> rows) override;
  void BeginAt(int64_t steps_done) override { state_.BeginAt(steps_done); }
  absl::Status CatchUp(std::span<const int32_t> local, SkippedSteps& skipped) override;
  void LabelCosines(const EngineBatch& batch, std::span<float> cosines) override;
  void Prepare(const EngineBatch& batch) override;
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
  // What Score needs of the batch before its tiles.
  absl::Status TakeBatch(const EngineBatch& batch);
  // The first tile of a thread; empty where there is none for it.
  Range FirstTileOf(int thread) const;
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
  // The same for the first of a thread's.
  void FetchFirst(Range places) const;

  EngineOptions options_;
  TilePlan plan_;
  ShardState state_;
  std::optional<std::span<const int32_t>> active_;  // Of the batch.
  AlignedBuffer<float> inverse_norms_;              // By place, of the last Score
  TileOperands operands_;
  KeptCosines kept_;
  std::optional<absl::Status> prepared_;  // Of Prepare, until Score: each thread has the products of its first tile.
  ThreadPool pool_;
  std::vector<ThreadWork> works_;  // One a thread.
  std::vector<absl::Status> statuses_;
  LabelHits hits_;
  std::vector<float> label_cosines_;                                              // [B], of the last LabelCosines
  std::vector<float> thresholds_, shifts_, support_vector_offsets_, row_scales_;  // [P]
};

}  // namespace shardmax
