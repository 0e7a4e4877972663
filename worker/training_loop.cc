#include "worker/training_loop.h"

#include <spdlog/logger.h>

#include <algorithm>
#include <chrono>
#include <span>

#include "worker/base/status.h"

namespace shardmax {

using Clock = std::chrono::steady_clock;

TrainingLoop::TrainingLoop(const LoopContext& context, const LabelledRows& dataset, const LabelledRows* validation)
    : context_(context),
      dataset_(dataset),
      validation_(validation),
      batches_(dataset.rows(), context.train.batch_size(), context.train.dataset().shuffle(),
               context.train.init().seed()),
      head_(context.comm, context.engine, context.train.num_classes()),
      recorder_(context_, head_) {}

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

absl::StatusOr<LoopEnd> TrainingLoop::Run(int64_t first_step) {
  absl::StatusOr<LoopEnd> end = RunSteps(first_step);
  // What is wrong now does not concern the steps up to the checkpoint that is still written.
  if (!end.ok() && !absl::IsAborted(end.status())) recorder_.checkpoints().Finish().IgnoreError();
  return end;
}

absl::StatusOr<LoopEnd> TrainingLoop::RunSteps(int64_t first_step) {
  recorder_.Start(first_step);
  SHARDMAX_RETURN_IF_ERROR(MakeUpForValidation(first_step));
  recorder_.StartWindow();
  LoopEnd end = LoopEnd::kFinished;
  for (int64_t step = first_step; step < context_.plan.total_steps && end != LoopEnd::kStopped; ++step) {
    SHARDMAX_ASSIGN_OR_RETURN(const StepResult result, Step(step));
    if ((result.requests & kRequestAbandon) != 0) {
      return Error(absl::StatusCode::kAborted, "step {}: the job was taken away from this run", step + 1);
    }
    SHARDMAX_RETURN_IF_ERROR(Record(step, result));
    if ((result.requests & kRequestStop) != 0 && !recorder_.IsLast(step)) end = LoopEnd::kStopped;
  }
  SHARDMAX_RETURN_IF_ERROR(recorder_.Finish());
  return end;
}

bool TrainingLoop::EndsEpoch(int64_t step) const {
  return recorder_.IsLast(step) || (step + 1) % batches_.steps_per_epoch() == 0;
}

StepInput TrainingLoop::RowsOf(int64_t step) {
  return ReadRows(dataset_, batches_.batch_rows(step),
                  [&](int64_t position) { return batches_.row_at(step, position); });
}

absl::StatusOr<StepResult> TrainingLoop::Step(int64_t step) {
  const Clock::time_point start = Clock::now();
  SHARDMAX_RETURN_IF_ERROR(recorder_.PrepareSampling(step));
  StepInput input;
  if (!head_.has_rows()) input = RowsOf(step);
  if (input.status.ok()) input.status = recorder_.output_status();
  input.requests = context_.requests.Take() | recorder_.checkpoints().requests();
  input.want_feature_gradients = false;  // The features are frozen.
  input.loss = context_.plan.LossAt(step);
  input.rule = context_.plan.RuleAt(step);
  input.sampling = recorder_.SamplingOf(step);
  const auto next = [&] { return RowsOf(step + 1); };
  // Rows that cannot be read must not cost a checkpoint that is due before them.
  auto result = recorder_.CheckpointIsDue(step) ? head_.Step(input) : head_.Step(input, next);
  if (!result.ok()) {
    recorder_.CountFailure(result.status());
    return Annotate(result.status(), fmt::format("step {}", step + 1));
  }
  recorder_.Count(*result, batches_.batch_rows(step), context_.plan.schedule.At(step),
                  std::chrono::duration<double>(Clock::now() - start).count());
  return result;
}

// A checkpoint that is due comes before the validation, so that an error of it does not cost the steps since the last.
// The line comes before the checkpoint: a run resumed there does not write it.
absl::Status TrainingLoop::Record(int64_t step, const StepResult& result) {
  v1::StepMetrics metrics = recorder_.MetricsOf(step, batches_.epoch_of(step), context_.plan.schedule.At(step), result);
  recorder_.WriteLine(metrics, EndsEpoch(step));
  SHARDMAX_RETURN_IF_ERROR(recorder_.checkpoints().AfterStep(result.requests));
  const uint32_t requests = result.requests & ~kStillWriting;
  if (requests != 0 || recorder_.CheckpointIsDue(step)) {
    const bool ends = recorder_.IsLast(step) || (requests & kRequestStop) != 0;
    SHARDMAX_RETURN_IF_ERROR(
        recorder_.WriteCheckpoint(step + 1, ends ? StepRecorder::Writing::kAtOnce : StepRecorder::Writing::kBehind));
  }
  if (validation_ != nullptr && EndsEpoch(step)) {
    const StepRecorder::Pause pause(recorder_);
    SHARDMAX_RETURN_IF_ERROR(Validate(step + 1, metrics));
  }
  recorder_.TellStep(metrics);
  return absl::OkStatus();
}

absl::Status TrainingLoop::MakeUpForValidation(int64_t first_step) {
  if (validation_ == nullptr || first_step == 0 || !EndsEpoch(first_step - 1)) return absl::OkStatus();
  v1::StepMetrics metrics;
  if (context_.metrics != nullptr) metrics = context_.metrics->last();
  char due = metrics.step() == first_step && !metrics.has_validation_top1() ? 1 : 0;
  SHARDMAX_RETURN_IF_ERROR(context_.comm.Broadcast(std::as_writable_bytes(std::span(&due, 1)), 0));
  return due != 0 ? Validate(first_step, metrics) : absl::OkStatus();
}

absl::Status TrainingLoop::Validate(int64_t steps_done, v1::StepMetrics& metrics) {
  SHARDMAX_RETURN_IF_ERROR(recorder_.CatchUpClasses(steps_done));
  SHARDMAX_ASSIGN_OR_RETURN(const double top1, ValidationTop1());
  metrics.set_validation_top1(top1);
  recorder_.ReplaceLine(metrics);
  if (context_.log != nullptr) {
    context_.log->info("step {}: epoch {} held-out top-1 {:.4f}, loss {:.4f}", metrics.step(), metrics.epoch(), top1,
                       metrics.loss());
  }
  return absl::OkStatus();
}

absl::StatusOr<double> TrainingLoop::ValidationTop1() {
  ShardedHead::Accuracy total;
  const int64_t batch = context_.train.batch_size();
  for (int64_t first = 0; first < validation_->rows(); first += batch) {
    const int64_t rows = std::min(batch, validation_->rows() - first);
    const StepInput input = ReadRows(*validation_, rows, [&](int64_t position) { return first + position; });
    SHARDMAX_ASSIGN_OR_RETURN(const ShardedHead::Accuracy part, head_.CountNearest(input));
    total.correct += part.correct;
    total.counted += part.counted;
  }
  return total.counted > 0 ? static_cast<double>(total.correct) / static_cast<double>(total.counted) : 0;
}

}  // namespace shardmax
