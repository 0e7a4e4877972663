#include "worker/training_loop.h"

#include <spdlog/logger.h>

#include <algorithm>
#include <span>

#include "worker/base/status.h"

namespace shardmax {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

TrainingLoop::TrainingLoop(const TrainingContext& context)
    : context_(context),
      batches_(context.dataset.rows(), context.train.batch_size(), context.train.dataset().shuffle(),
               context.train.init().seed()),
      head_(context.comm, context.engine, context.train.num_classes()),
      skipped_(context.plan.optimizer, [schedule = context.plan.schedule](int64_t step) { return schedule.At(step); }) {
}

template <typename RowAt>
StepInput TrainingLoop::ReadRows(const LabelledRows& dataset, int64_t rows, const RowAt& row_at) {
  const Range mine = BalancedPart(rows, context_.comm.rank(), context_.comm.size());
  row_ids_.resize(static_cast<size_t>(mine.count));
  for (int64_t i = 0; i < mine.count; ++i) row_ids_[i] = row_at(mine.first + i);
  features_.resize(static_cast<size_t>(mine.count * dataset.dim()));
  labels_.resize(static_cast<size_t>(mine.count));
  const MatrixView<float> features = {features_.data(), mine.count, dataset.dim()};
  StepInput input;
  input.global_rows = rows;
  input.features = features;
  input.labels = labels_;
  input.status = dataset.Read(row_ids_, features, labels_);
  return input;
}

absl::StatusOr<TrainingLoop::End> TrainingLoop::Run(int64_t first_step) {
  stats_before_ = context_.comm.stats().Total();
  for (JobObserver* observer : context_.observers) observer->OnStart(first_step, context_.plan.total_steps);
  context_.engine.BeginAt(first_step);
  SHARDMAX_RETURN_IF_ERROR(MakeUpForValidation(first_step));
  window_start_ = Clock::now();
  End end = End::kFinished;
  for (int64_t step = first_step; step < context_.plan.total_steps && end != End::kStopped; ++step) {
    SHARDMAX_ASSIGN_OR_RETURN(const StepResult result, Step(step));
    if ((result.requests & kRequestAbandon) != 0) {
      return Error(absl::StatusCode::kAborted, "step {}: the job was taken away from this run", step + 1);
    }
    SHARDMAX_RETURN_IF_ERROR(Record(step, result));
    if ((result.requests & kRequestStop) != 0 && !IsLast(step)) end = End::kStopped;
  }
  LogPhases();
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context_.comm, output_status_));
  return end;
}

bool TrainingLoop::IsLast(int64_t step) const {
  return step + 1 == context_.plan.total_steps;
}

bool TrainingLoop::EndsEpoch(int64_t step) const {
  return IsLast(step) || (step + 1) % batches_.steps_per_epoch() == 0;
}

absl::StatusOr<StepResult> TrainingLoop::Step(int64_t step) {
  const Clock::time_point start = Clock::now();
  StepInput input = ReadRows(context_.dataset, batches_.batch_rows(step),
                             [&](int64_t position) { return batches_.row_at(step, position); });
  if (input.status.ok()) input.status = output_status_;
  input.requests = context_.requests.Take();
  input.want_feature_gradients = false;  // The features are frozen.
  input.loss = context_.plan.LossAt(step);
  input.rule = context_.plan.RuleAt(step);
  if (context_.plan.sample_rate < 1) {
    input.sampling = {
        .rate = context_.plan.sample_rate, .seed = context_.plan.seed, .step = step, .skipped = &skipped_};
  }
  auto result = head_.Step(input);
  if (!result.ok()) {
    for (JobObserver* observer : context_.observers) observer->OnStepFailed(result.status());
    return Annotate(result.status(), fmt::format("step {}", step + 1));
  }
  cost_ = {.global_rows = input.global_rows,
           .seconds = SecondsSince(start),
           .phases = result->phase_seconds,
           .comm = &context_.comm};
  phase_seconds_ += result->phase_seconds;
  samples_in_window_ += input.global_rows;
  return result;
}

// A checkpoint that is due comes before the validation, so that an error of it does not cost the steps since the last.
// The line comes before the checkpoint: a run resumed there does not write it.
absl::Status TrainingLoop::Record(int64_t step, const StepResult& result) {
  v1::StepMetrics metrics = MetricsOf(step, result);
  const bool logged = EndsEpoch(step) || (step + 1) % context_.train.log_every_steps() == 0;
  if (logged) {
    if (context_.metrics != nullptr) output_status_ = context_.metrics->Append(metrics);
    samples_in_window_ = 0;
    window_start_ = Clock::now();
  }
  const Clock::time_point pause = Clock::now();
  const int64_t every = context_.train.checkpoint().every_steps();
  if (IsLast(step) || result.requests != 0 || (every > 0 && (step + 1) % every == 0)) {
    SHARDMAX_RETURN_IF_ERROR(WriteCheckpoint(step + 1));
  }
  if (context_.validation != nullptr && EndsEpoch(step)) SHARDMAX_RETURN_IF_ERROR(Validate(step + 1, metrics));
  window_start_ += Clock::now() - pause;
  for (JobObserver* observer : context_.observers) observer->OnStep(metrics, cost_);
  return absl::OkStatus();
}

absl::Status TrainingLoop::MakeUpForValidation(int64_t first_step) {
  if (context_.validation == nullptr || first_step == 0 || !EndsEpoch(first_step - 1)) return absl::OkStatus();
  v1::StepMetrics metrics;
  if (context_.metrics != nullptr) metrics = context_.metrics->last();
  char due = metrics.step() == first_step && !metrics.has_validation_top1() ? 1 : 0;
  SHARDMAX_RETURN_IF_ERROR(context_.comm.Broadcast(std::as_writable_bytes(std::span(&due, 1)), 0));
  return due != 0 ? Validate(first_step, metrics) : absl::OkStatus();
}

absl::Status TrainingLoop::CatchUpClasses(int64_t steps_done) {
  if (context_.plan.sample_rate >= 1) return absl::OkStatus();
  skipped_.MoveTo(steps_done);
  return AgreeOk(context_.comm, head_.CatchUpAll(skipped_));
}

absl::Status TrainingLoop::Validate(int64_t steps_done, v1::StepMetrics& metrics) {
  SHARDMAX_RETURN_IF_ERROR(CatchUpClasses(steps_done));
  SHARDMAX_ASSIGN_OR_RETURN(const double top1, ValidationTop1());
  metrics.set_validation_top1(top1);
  if (context_.metrics == nullptr) return absl::OkStatus();
  if (output_status_.ok()) output_status_ = context_.metrics->ReplaceLast(metrics);
  context_.log->info("step {}: epoch {} held-out top-1 {:.4f}, loss {:.4f}", metrics.step(), metrics.epoch(), top1,
                     metrics.loss());
  return absl::OkStatus();
}

absl::StatusOr<double> TrainingLoop::ValidationTop1() {
  ShardedHead::Accuracy total;
  const int64_t batch = context_.train.batch_size();
  for (int64_t first = 0; first < context_.validation->rows(); first += batch) {
    const int64_t rows = std::min(batch, context_.validation->rows() - first);
    const StepInput input = ReadRows(*context_.validation, rows, [&](int64_t position) { return first + position; });
    SHARDMAX_ASSIGN_OR_RETURN(const ShardedHead::Accuracy part, head_.CountNearest(input));
    total.correct += part.correct;
    total.counted += part.counted;
  }
  return total.counted > 0 ? static_cast<double>(total.correct) / static_cast<double>(total.counted) : 0;
}

v1::StepMetrics TrainingLoop::MetricsOf(int64_t step, const StepResult& result) const {
  v1::StepMetrics metrics;
  metrics.set_step(static_cast<int32_t>(step + 1));
  metrics.set_epoch(static_cast<int32_t>(batches_.epoch_of(step)));
  metrics.set_loss(result.loss);
  metrics.set_lr(context_.plan.schedule.At(step));
  metrics.set_samples_per_second(static_cast<double>(samples_in_window_) / SecondsSince(window_start_));
  metrics.set_support_vector_ratio(result.support_vector_ratio);
  metrics.set_label_cosine(result.label_cosine);
  return metrics;
}

void TrainingLoop::LogPhases() const {
  if (context_.log == nullptr) return;
  const PhaseSeconds& s = phase_seconds_;
  const CommStats::Counter total = context_.comm.stats().Total();
  context_.log->info(
      "seconds of the steps on rank 0: gather {:.3f}, label {:.3f}, score {:.3f}, normalise {:.3f}, backward {:.3f}, "
      "scatter {:.3f}; "
      "{} collectives took {:.3f} s and sent {} bytes",
      s.gather, s.label, s.score, s.normalise, s.backward, s.scatter, total.calls - stats_before_.calls,
      total.seconds - stats_before_.seconds, total.bytes - stats_before_.bytes);
}

absl::Status TrainingLoop::WriteCheckpoint(int64_t steps_done) {
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context_.comm, context_.requests.MayWrite()));
  SHARDMAX_RETURN_IF_ERROR(head_.AgreeOnUpdate());
  SHARDMAX_RETURN_IF_ERROR(CatchUpClasses(steps_done));
  const Clock::time_point start = Clock::now();
  v1::Manifest manifest;
  manifest.set_step(static_cast<int32_t>(steps_done));
  manifest.set_num_classes(context_.train.num_classes());
  manifest.set_dim(context_.train.dim());
  manifest.set_optimizer(context_.plan.optimizer.kind == OptimizerKind::kSgd ? "sgd" : "adamw");
  manifest.add_tensors("weight");
  for (const std::string& name : context_.plan.optimizer.StateNames()) manifest.add_tensors(name);
  const bool bfloat16_state = context_.plan.optimizer.state_type == StateType::kBfloat16;
  if (bfloat16_state && manifest.tensors_size() > 1) manifest.set_state_dtype("BF16");
  SHARDMAX_RETURN_IF_ERROR(shardmax::WriteCheckpoint(
      context_.comm, context_.checkpoints_folder, manifest, context_.engine.options().shard,
      [&](const std::string& name, Range classes, MatrixView<float> out) {
        return context_.engine.ReadRows(name, classes, out);
      },
      context_.train.checkpoint().keep()));
  const double seconds = SecondsSince(start);
  if (context_.log != nullptr) context_.log->info("step {}: wrote a checkpoint in {:.2f} s", steps_done, seconds);
  const int64_t value_bytes = 4 + int64_t{bfloat16_state ? 2 : 4} * (manifest.tensors_size() - 1);
  const int64_t bytes = value_bytes * manifest.num_classes() * manifest.dim();
  for (JobObserver* observer : context_.observers) observer->OnCheckpoint(steps_done, seconds, bytes);
  return absl::OkStatus();
}

}  // namespace shardmax
