#include "worker/head/sharded_head.h"

#include <algorithm>
#include <chrono>
#include <numeric>
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

}  // namespace

ShardedHead::ShardedHead(Communicator& comm, Engine& engine, int64_t num_classes)
    : comm_(comm),
      engine_(engine),
      num_classes_(num_classes),
      device_step_(DeviceStep::Make(comm, engine, num_classes)) {}

EngineBatch ShardedHead::batch() const {
  EngineBatch batch = {.features = gather_.features(), .labels = gather_.labels()};
  if (sampled_) batch.active = active_.local();
  return batch;
}

absl::Status ShardedHead::AgreeOnUpdate() {
  return AgreeOk(comm_, update_status());
}

absl::Status ShardedHead::Gather(const StepInput& input) {
  // Equal on every rank, so an error is too.
  SHARDMAX_ASSIGN_OR_RETURN(auto parts, PartsOfBatch(input.global_rows, input.rank_rows, comm_.size()));
  absl::Status status = update_status().ok() ? input.status : update_status();
  if (status.ok() && input.features.cols != engine_.options().dim) {
    status = InvalidArgument("features have width {}, the head has dim {}", input.features.cols, engine_.options().dim);
  }
  MatrixView<const float> features = input.features;
  features.cols = engine_.options().dim;  // Equal blocks even where the width is wrong; then no row is read.
  return gather_.Exchange(comm_, num_classes_, std::move(parts), features, input.labels, status, input.requests);
}

absl::Status ShardedHead::CatchUpAll(SkippedSteps& skipped) {
  std::vector<int32_t> all(static_cast<size_t>(engine_.options().shard.count));
  std::iota(all.begin(), all.end(), 0);
  return engine_.CatchUp(all, skipped);
}

absl::Status ShardedHead::ExchangeNeighbours(const StepInput& input) {
  sampled_ = input.sampling.has_value();
  if (!sampled_ || !HasGraph(*input.sampling)) return absl::OkStatus();
  return neighbours_.Gather(comm_, *input.sampling->neighbours, gather_.labels());
}

absl::Status ShardedHead::Activate(const StepInput& input) {
  if (!sampled_) return absl::OkStatus();
  if (HasGraph(*input.sampling)) {
    active_.ChooseNearest(*input.sampling, engine_.options().shard, num_classes_, neighbours_);
  } else {
    active_.Choose(*input.sampling, engine_.options().shard, gather_.labels());
  }
  input.sampling->skipped->MoveTo(input.sampling->step);
  return engine_.CatchUp(active_.local(), *input.sampling->skipped);
}

absl::Status ShardedHead::ExchangeLabelCosines(const LossParams& loss) {
  const size_t rows = gather_.labels().size();
  label_cosines_.resize(rows);
  engine_.LabelCosines(batch(), label_cosines_);
  if (sampled_) label_cosines_.push_back(static_cast<float>(active_.local().size()));
  SHARDMAX_RETURN_IF_ERROR(comm_.AllReduceSum(label_cosines_));
  scored_classes_ = sampled_ ? static_cast<double>(label_cosines_.back()) : static_cast<double>(num_classes_);
  return rows_.SetLabelCosines(loss, gather_.labels(), std::span<const float>(label_cosines_).first(rows));
}

absl::StatusOr<int64_t> ShardedHead::CountOwnSupportVectors(const StepInput& input) {
  constexpr int64_t kFewestClasses = 256;
  const int64_t at_a_time = std::max<int64_t>(kFewestClasses, static_cast<int64_t>(active_.local().size()));
  const Range shard = engine_.options().shard;
  const size_t rows = gather_.labels().size();
  std::vector<int32_t> classes;
  std::vector<int32_t> labels(rows);
  std::vector<ShardPartial> partials(rows);
  int64_t support_vectors = 0;
  for (int64_t first = 0; first < shard.count; first += at_a_time) {
    classes.resize(static_cast<size_t>(std::min(at_a_time, shard.count - first)));
    std::iota(classes.begin(), classes.end(), static_cast<int32_t>(first));
    const Range part = {shard.first + first, static_cast<int64_t>(classes.size())};
    // A label must be among the classes that are scored.
    std::ranges::transform(gather_.labels(), labels.begin(),
                           [&](int32_t label) { return part.contains(label) ? label : -1; });
    SHARDMAX_RETURN_IF_ERROR(engine_.CatchUp(classes, *input.sampling->skipped));
    SHARDMAX_RETURN_IF_ERROR(engine_.Score({.features = gather_.features(), .labels = labels, .active = classes},
                                           ScaleOf(input.loss), rows_.thresholds(), partials));
    for (const ShardPartial& partial : partials) support_vectors += partial.support_vectors;
  }
  return support_vectors;
}

absl::Status ShardedHead::CountSupportVectors(const StepInput& input, const absl::Status& activated) {
  const absl::StatusOr<int64_t> mine =
      activated.ok() ? CountOwnSupportVectors(input) : absl::StatusOr<int64_t>(activated);
  const int64_t count = mine.ok() ? *mine : 0;
  SHARDMAX_RETURN_IF_ERROR(partials_.Exchange(comm_, mine.status(), std::as_bytes(std::span(&count, 1))));
  all_support_vectors_ = 0;
  for (const auto of_rank : partials_.gathered<int64_t>()) all_support_vectors_ += of_rank[0];
  return absl::OkStatus();
}

absl::Status ShardedHead::ScoreAndNormalise(const LossParams& loss, const absl::Status& activated,
                                            PhaseSeconds& seconds) {
  absl::Status scored = activated;
  if (scored.ok()) {
    const ScopedSeconds timer(seconds.score);
    my_partials_.resize(gather_.labels().size());
    scored = engine_.Score(batch(), ScaleOf(loss), rows_.thresholds(), my_partials_);
  }
  my_partials_.resize(gather_.labels().size());  // Equal blocks, where it was not scored too.
  const ScopedSeconds timer(seconds.normalise);
  SHARDMAX_RETURN_IF_ERROR(partials_.Exchange(comm_, scored, std::as_bytes(std::span(my_partials_))));
  return rows_.SetPartials(loss, partials_.gathered<ShardPartial>());
}

absl::Status ShardedHead::Scatter(MatrixView<const float> features, const absl::Status& updated, StepResult& result) {
  const int64_t dim = engine_.options().dim;
  // After its rows each block has a mark, whose sum tells every rank whether some rank's update failed.
  const int64_t block = gather_.block_rows() * dim + 1;
  feature_gradients_.assign(static_cast<size_t>(comm_.size() * block), 0);
  for (int rank = 0; rank < comm_.size(); ++rank) {
    float* to = feature_gradients_.data() + rank * block;
    const Range& rows = gather_.parts()[static_cast<size_t>(rank)];
    if (updated.ok()) std::copy_n(dense_gradients_.begin() + rows.first * dim, rows.count * dim, to);
    to[block - 1] = updated.ok() ? 0 : 1;
  }
  my_feature_gradients_.resize(static_cast<size_t>(block));
  SHARDMAX_RETURN_IF_ERROR(comm_.ReduceScatterSum(feature_gradients_, my_feature_gradients_));
  if (my_feature_gradients_.back() != 0) return AgreeOk(comm_, updated);

  // dloss/dx = (g - (g · x̂) x̂) / |x| with g = dloss/dx̂.
  const MatrixView<float> mine = {my_feature_gradients_.data(), features.rows, dim};
  const int64_t first = gather_.parts()[static_cast<size_t>(comm_.rank())].first;
  for (int64_t i = 0; i < mine.rows; ++i) {
    const std::span<float> g = mine.row(i);
    const std::span<const float> x_hat = gather_.features().row(first + i);
    double along = 0;
    for (int64_t j = 0; j < dim; ++j) along += static_cast<double>(g[j]) * x_hat[j];
    const float inverse_norm = gather_.my_inverse_norms()[i];
    for (int64_t j = 0; j < dim; ++j) g[j] = (g[j] - static_cast<float>(along) * x_hat[j]) * inverse_norm;
  }
  result.feature_gradients = mine;
  return absl::OkStatus();
}

absl::StatusOr<StepResult> ShardedHead::Step(const StepInput& input) {
  // No device samples: its engine says so in the step by way of the host.
  if (device_step_ != nullptr && !input.sampling.has_value()) return device_step_->Run(input);
  StepResult result;
  PhaseSeconds& seconds = result.phase_seconds;
  {
    const ScopedSeconds timer(seconds.gather);
    SHARDMAX_RETURN_IF_ERROR(Gather(input));
  }
  absl::Status activated;
  {
    const ScopedSeconds timer(seconds.label);
    SHARDMAX_RETURN_IF_ERROR(ExchangeNeighbours(input));
    activated = Activate(input);
    SHARDMAX_RETURN_IF_ERROR(ExchangeLabelCosines(input.loss));
  }
  const bool measures_recall = sampled_ && input.sampling->measure_recall;
  if (measures_recall) {
    const ScopedSeconds timer(seconds.score);
    SHARDMAX_RETURN_IF_ERROR(CountSupportVectors(input, activated));
  }
  SHARDMAX_RETURN_IF_ERROR(ScoreAndNormalise(input.loss, activated, seconds));
  absl::Status updated;
  {
    const ScopedSeconds timer(seconds.backward);
    MatrixView<float> gradients;
    if (input.want_feature_gradients) {
      dense_gradients_.resize(gather_.labels().size() * engine_.options().dim);
      gradients = {dense_gradients_.data(), gather_.features().rows, engine_.options().dim};
    }
    updated = engine_.Backward(batch(), ScaleOf(input.loss), rows_.gradients(), input.rule, gradients);
    // A rank that returned here would leave the others alone with their next collective.
    update_status_ = Annotate(updated, "in the backward phase of the step before");
  }
  if (input.want_feature_gradients) {
    const ScopedSeconds timer(seconds.scatter);
    SHARDMAX_RETURN_IF_ERROR(Scatter(input.features, updated, result));
  }
  result.loss = rows_.loss();
  result.label_cosine = rows_.mean_label_cosine();
  result.counted_rows = rows_.counted_rows();
  result.requests = gather_.requests();
  result.support_vector_ratio = SupportVectorRatio(rows_.support_vectors(), rows_.counted_rows(), scored_classes_);
  if (measures_recall) {
    // Rounding may tell a class at the threshold differently in the two passes.
    const double all = static_cast<double>(std::max(all_support_vectors_, rows_.support_vectors()));
    result.support_vector_recall = all > 0 ? static_cast<double>(rows_.support_vectors()) / all : 1;
  }
  return result;
}

absl::StatusOr<ShardedHead::Accuracy> ShardedHead::CountNearest(const StepInput& input) {
  struct Nearest {
    float cosine;
    int32_t global_class_id;
  };
  SHARDMAX_RETURN_IF_ERROR(Gather(input));
  const size_t rows = gather_.labels().size();
  std::vector<float> cosines(rows);
  std::vector<int32_t> classes(rows);
  const absl::Status found = engine_.NearestClasses(gather_.features(), cosines, classes);
  std::vector<Nearest> mine(rows);
  for (size_t b = 0; b < rows; ++b) mine[b] = {cosines[b], classes[b]};
  SHARDMAX_RETURN_IF_ERROR(partials_.Exchange(comm_, found, std::as_bytes(std::span(mine))));
  const auto all = partials_.gathered<Nearest>();
  Accuracy accuracy;
  for (size_t b = 0; b < rows; ++b) {
    if (gather_.labels()[b] < 0) continue;
    Nearest best = all[0][b];
    for (int rank = 1; rank < comm_.size(); ++rank) {
      // Ranks hold ascending classes, so that a tie stays with the lower.
      if (all[rank][b].cosine > best.cosine) best = all[rank][b];
    }
    ++accuracy.counted;
    accuracy.correct += best.global_class_id == gather_.labels()[b] ? 1 : 0;
  }
  return accuracy;
}

}  // namespace shardmax
