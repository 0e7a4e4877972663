#include "worker/head/sharded_head.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <optional>
#include <utility>

#include "worker/base/status.h"

namespace shardmax {
namespace {

// Adds the seconds of its life to `total`.
class ScopedSeconds {
 public:
  explicit ScopedSeconds(double& total) : total_(total), start_(std::chrono::steady_clock::now()) {}
  ~ScopedSeconds() { total_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  ScopedSeconds(const ScopedSeconds&) = delete;
  ScopedSeconds& operator=(const ScopedSeconds&) = delete;

 private:
  double& total_;
  std::chrono::steady_clock::time_point start_;
};

bool HasGraph(const StepSampling& sampling) {
  return sampling.neighbours != nullptr && sampling.neighbours->built();
}

bool MeasuresRecall(const StepInput& input) {
  return input.sampling.has_value() && input.sampling->measure_recall;
}

}  // namespace

ShardedHead::ShardedHead(Communicator& comm, Engine& engine, int64_t num_classes)
    : comm_(comm),
      engine_(engine),
      num_classes_(num_classes),
      device_step_(DeviceStep::Make(comm, engine, num_classes)),
      rows_(comm, num_classes, engine.options().dim) {}

EngineBatch ShardedHead::batch() const {
  EngineBatch batch = {.features = rows_.now().features(), .labels = rows_.now().labels()};
  if (sampled_) batch.active = active_.local();
  return batch;
}

absl::Status ShardedHead::AgreeOnUpdate() {
  return AgreeOk(comm_, update_status());
}

absl::Status ShardedHead::GatherOrAdvance(const StepInput& input) {
  if (!rows_.has_next()) return rows_.Gather(input, update_status());
  const absl::Status gathered = rows_.Advance();
  // It is equal on every rank. When these rows were gathered, nobody knew of an update that failed, which comes first.
  if (!gathered.ok()) SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm_, update_status()));
  return gathered;
}

absl::Status ShardedHead::CatchUpAll(SkippedSteps& skipped) {
  std::vector<int32_t> all(static_cast<size_t>(engine_.options().shard.count));
  std::iota(all.begin(), all.end(), 0);
  return engine_.CatchUp(all, skipped);
}

absl::Status ShardedHead::ExchangeNeighbours(const StepInput& input) {
  sampled_ = input.sampling.has_value();
  if (!sampled_ || !HasGraph(*input.sampling)) return absl::OkStatus();
  return neighbours_.Gather(comm_, *input.sampling->neighbours, rows_.now().labels());
}

absl::Status ShardedHead::Activate(const StepInput& input) {
  if (!sampled_) return absl::OkStatus();
  if (HasGraph(*input.sampling)) {
    active_.ChooseNearest(*input.sampling, engine_.options().shard, num_classes_, neighbours_);
  } else {
    active_.Choose(*input.sampling, engine_.options().shard, rows_.now().labels());
  }
  input.sampling->skipped->MoveTo(input.sampling->step);
  return engine_.CatchUp(active_.local(), *input.sampling->skipped);
}

absl::Status ShardedHead::ExchangeLabelCosines(const StepInput& input, const absl::Status& ready) {
  const size_t rows = rows_.now().labels().size();
  label_cosines_.assign(rows, 0);
  if (ready.ok()) engine_.LabelCosines(batch(), label_cosines_);
  if (sampled_) label_cosines_.push_back(static_cast<float>(active_.local().size()));
  absl::Status summed;
  // What is scored next is the batch's classes, unless recall is measured.
  if (ready.ok() && overlaps() && comm_.size() > 1 && !MeasuresRecall(input)) {
    SideThread::Task sum(side_, [&] { summed = comm_.AllReduceSum(label_cosines_); });
    engine_.Prepare(batch());
    sum.Wait();
  } else {
    summed = comm_.AllReduceSum(label_cosines_);
  }
  SHARDMAX_RETURN_IF_ERROR(summed);
  scored_classes_ = sampled_ ? static_cast<double>(label_cosines_.back()) : static_cast<double>(num_classes_);
  const absl::Status set =
      outcomes_.SetLabelCosines(input.loss, rows_.now().labels(), std::span<const float>(label_cosines_).first(rows));
  // It is equal on every rank. If one is not ready, that is why.
  if (!set.ok()) SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm_, ready));
  return set;
}

absl::StatusOr<int64_t> ShardedHead::CountOwnSupportVectors(const StepInput& input) {
  constexpr int64_t kFewestClasses = 256;
  const int64_t at_a_time = std::max<int64_t>(kFewestClasses, static_cast<int64_t>(active_.local().size()));
  const Range shard = engine_.options().shard;
  const size_t rows = rows_.now().labels().size();
  std::vector<int32_t> classes;
  std::vector<int32_t> labels(rows);
  std::vector<ShardPartial> partials(rows);
  int64_t support_vectors = 0;
  for (int64_t first = 0; first < shard.count; first += at_a_time) {
    classes.resize(static_cast<size_t>(std::min(at_a_time, shard.count - first)));
    std::iota(classes.begin(), classes.end(), static_cast<int32_t>(first));
    const Range part = {shard.first + first, static_cast<int64_t>(classes.size())};
    // A label must be among the classes that are scored.
    std::ranges::transform(rows_.now().labels(), labels.begin(),
                           [&](int32_t label) { return part.contains(label) ? label : -1; });
    SHARDMAX_RETURN_IF_ERROR(engine_.CatchUp(classes, *input.sampling->skipped));
    SHARDMAX_RETURN_IF_ERROR(engine_.Score({.features = rows_.now().features(), .labels = labels, .active = classes},
                                           ScaleOf(input.loss), outcomes_.thresholds(), partials));
    for (const ShardPartial& partial : partials) support_vectors += partial.support_vectors;
  }
  return support_vectors;
}

absl::Status ShardedHead::CountSupportVectors(const StepInput& input, const absl::Status& ready) {
  const absl::StatusOr<int64_t> mine = ready.ok() ? CountOwnSupportVectors(input) : absl::StatusOr<int64_t>(ready);
  const int64_t count = mine.ok() ? *mine : 0;
  SHARDMAX_RETURN_IF_ERROR(partials_.Exchange(comm_, mine.status(), std::as_bytes(std::span(&count, 1))));
  all_support_vectors_ = 0;
  for (const auto of_rank : partials_.gathered<int64_t>()) all_support_vectors_ += of_rank[0];
  return absl::OkStatus();
}

absl::Status ShardedHead::ScoreAndNormalise(const StepInput& input, const absl::Status& ready, PhaseSeconds& seconds) {
  absl::Status scored = ready;
  my_partials_.resize(rows_.now().labels().size());  // Equal blocks, where it is not scored too.
  if (scored.ok()) {
    const ScopedSeconds timer(seconds.score);
    scored = engine_.Score(batch(), ScaleOf(input.loss), outcomes_.thresholds(), my_partials_);
  }
  const ScopedSeconds timer(seconds.normalise);
  SHARDMAX_RETURN_IF_ERROR(partials_.Exchange(comm_, scored, std::as_bytes(std::span(my_partials_)), input.requests));
  partials_.SetGathered(partials_of_ranks_);
  return outcomes_.SetPartials(input.loss, partials_of_ranks_);
}

absl::Status ShardedHead::Backward(const StepInput& input, const NextRows* next, PhaseSeconds& seconds) {
  std::optional<SideThread::Task> gather;
  if (next != nullptr && overlaps()) gather.emplace(side_, [this, next] { rows_.GatherNext(*next); });
  absl::Status updated;
  {
    const ScopedSeconds timer(seconds.backward);
    MatrixView<float> gradients;
    if (input.want_feature_gradients) {
      dense_gradients_.resize(rows_.now().labels().size() * engine_.options().dim);
      gradients = {dense_gradients_.data(), rows_.now().features().rows, engine_.options().dim};
    }
    updated = engine_.Backward(batch(), ScaleOf(input.loss), outcomes_.gradients(), input.rule, gradients);
    // A rank that returned here would leave the others alone with their next collective.
    if (!updated.ok()) update_status_ = Annotate(updated, "in the backward phase of the step before");
  }
  const ScopedSeconds timer(seconds.gather);
  if (gather.has_value()) gather->Wait();
  return updated;
}

absl::Status ShardedHead::Scatter(const absl::Status& updated, StepResult& result) {
  const int64_t dim = engine_.options().dim;
  // After its rows each block has a mark, whose sum tells every rank whether some rank's update failed.
  const int64_t block = rows_.now().block_rows() * dim + 1;
  feature_gradients_.assign(static_cast<size_t>(comm_.size() * block), 0);
  for (int rank = 0; rank < comm_.size(); ++rank) {
    float* to = feature_gradients_.data() + rank * block;
    const Range& rows = rows_.now().parts()[static_cast<size_t>(rank)];
    if (updated.ok()) std::copy_n(dense_gradients_.begin() + rows.first * dim, rows.count * dim, to);
    to[block - 1] = updated.ok() ? 0 : 1;
  }
  my_feature_gradients_.resize(static_cast<size_t>(block));
  SHARDMAX_RETURN_IF_ERROR(comm_.ReduceScatterSum(feature_gradients_, my_feature_gradients_));
  if (my_feature_gradients_.back() != 0) return AgreeOk(comm_, updated);

  // dloss/dx = (g - (g · x̂) x̂) / |x| with g = dloss/dx̂.
  const Range& my_rows = rows_.now().parts()[static_cast<size_t>(comm_.rank())];
  const MatrixView<float> mine = {my_feature_gradients_.data(), my_rows.count, dim};
  for (int64_t i = 0; i < mine.rows; ++i) {
    const std::span<float> g = mine.row(i);
    const std::span<const float> x_hat = rows_.now().features().row(my_rows.first + i);
    double along = 0;
    for (int64_t j = 0; j < dim; ++j) along += static_cast<double>(g[j]) * x_hat[j];
    const float inverse_norm = rows_.now().my_inverse_norms()[i];
    for (int64_t j = 0; j < dim; ++j) g[j] = (g[j] - static_cast<float>(along) * x_hat[j]) * inverse_norm;
  }
  result.feature_gradients = mine;
  return absl::OkStatus();
}

absl::StatusOr<StepResult> ShardedHead::RunStep(const StepInput& input, const NextRows* next) {
  // No device samples: its engine says so in the step by way of the host.
  if (device_step_ != nullptr && !input.sampling.has_value()) return device_step_->Run(input);
  StepResult result;
  PhaseSeconds& seconds = result.phase_seconds;
  {
    const ScopedSeconds timer(seconds.gather);
    SHARDMAX_RETURN_IF_ERROR(GatherOrAdvance(input));
  }
  absl::Status ready = update_status();
  ready.Update(input.status);
  {
    const ScopedSeconds timer(seconds.label);
    SHARDMAX_RETURN_IF_ERROR(ExchangeNeighbours(input));
    if (ready.ok()) ready = Activate(input);
    SHARDMAX_RETURN_IF_ERROR(ExchangeLabelCosines(input, ready));
  }
  if (MeasuresRecall(input)) {
    const ScopedSeconds timer(seconds.score);
    SHARDMAX_RETURN_IF_ERROR(CountSupportVectors(input, ready));
  }
  SHARDMAX_RETURN_IF_ERROR(ScoreAndNormalise(input, ready, seconds));
  const absl::Status updated = Backward(input, next, seconds);
  if (input.want_feature_gradients) {
    const ScopedSeconds timer(seconds.scatter);
    SHARDMAX_RETURN_IF_ERROR(Scatter(updated, result));
  }
  result.loss = outcomes_.loss();
  result.label_cosine = outcomes_.mean_label_cosine();
  result.counted_rows = outcomes_.counted_rows();
  result.requests = partials_.requests();
  result.support_vector_ratio =
      SupportVectorRatio(outcomes_.support_vectors(), outcomes_.counted_rows(), scored_classes_);
  if (MeasuresRecall(input)) {
    // Rounding may tell a class at the threshold differently in the two passes.
    const double all = static_cast<double>(std::max(all_support_vectors_, outcomes_.support_vectors()));
    result.support_vector_recall = all > 0 ? static_cast<double>(outcomes_.support_vectors()) / all : 1;
  }
  return result;
}

absl::StatusOr<ShardedHead::Accuracy> ShardedHead::CountNearest(const StepInput& input) {
  struct Nearest {
    float cosine;
    int32_t global_class_id;
  };
  SHARDMAX_RETURN_IF_ERROR(rows_.Gather(input, update_status()));
  const size_t rows = rows_.now().labels().size();
  std::vector<float> cosines(rows);
  std::vector<int32_t> classes(rows);
  const absl::Status found = engine_.NearestClasses(rows_.now().features(), cosines, classes);
  std::vector<Nearest> mine(rows);
  for (size_t b = 0; b < rows; ++b) mine[b] = {cosines[b], classes[b]};
  SHARDMAX_RETURN_IF_ERROR(partials_.Exchange(comm_, found, std::as_bytes(std::span(mine))));
  const auto all = partials_.gathered<Nearest>();
  Accuracy accuracy;
  for (size_t b = 0; b < rows; ++b) {
    if (rows_.now().labels()[b] < 0) continue;
    Nearest best = all[0][b];
    for (int rank = 1; rank < comm_.size(); ++rank) {
      // Ranks hold ascending classes, so that a tie stays with the lower.
      if (all[rank][b].cosine > best.cosine) best = all[rank][b];
    }
    ++accuracy.counted;
    accuracy.correct += best.global_class_id == rows_.now().labels()[b] ? 1 : 0;
  }
  return accuracy;
}

}  // namespace shardmax
