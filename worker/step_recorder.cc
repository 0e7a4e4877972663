#include "worker/step_recorder.h"

#include <spdlog/logger.h>

#include "worker/base/status.h"
#include "worker/head/neighbour_scan.h"

namespace shardmax {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

StepRecorder::StepRecorder(const LoopContext& context, ShardedHead& head)
    : context_(context),
      head_(head),
      skipped_(context.plan.optimizer,
               [this](int64_t step) { return rates_[static_cast<size_t>(step - first_rate_step_)]; }),
      checkpoints_(context) {}

void StepRecorder::BeginAt(int64_t step) {
  context_.engine.BeginAt(step);
  first_rate_step_ = step;
  rates_.clear();
}

void StepRecorder::Start(int64_t first_step) {
  BeginAt(first_step);
  stats_before_ = context_.comm.stats().Total();
  checkpoints_.BeginAt(first_step);
  for (JobObserver* observer : context_.observers) observer->OnStart(first_step, context_.plan.total_steps);
  StartWindow();
}

void StepRecorder::StartWindow() {
  samples_in_window_ = 0;
  window_start_ = Clock::now();
}

void StepRecorder::GoBack(int64_t step) {
  BeginAt(step);
  checkpoints_.BeginAt(step);
  if (context_.metrics != nullptr && output_status_.ok()) output_status_ = context_.metrics->GoBack(step);
  for (JobObserver* observer : context_.observers) observer->OnGoBack(step);
  StartWindow();
}

absl::Status StepRecorder::PrepareSampling(int64_t step) {
  if (context_.neighbours == nullptr || !context_.plan.nearest->BuildsBefore(step)) return absl::OkStatus();
  const Clock::time_point start = Clock::now();
  SHARDMAX_RETURN_IF_ERROR(head_.AgreeOnUpdate());
  SHARDMAX_RETURN_IF_ERROR(CatchUpClasses(step));
  SHARDMAX_RETURN_IF_ERROR(Annotate(BuildNeighbourGraph(context_.comm, context_.engine, *context_.neighbours),
                                    fmt::format("step {}: the graph of nearest classes", step + 1)));
  if (context_.log != nullptr) {
    context_.log->info("step {}: built the graph of nearest classes in {:.2f} s", step + 1, SecondsSince(start));
  }
  return absl::OkStatus();
}

std::optional<StepSampling> StepRecorder::SamplingOf(int64_t step) {
  if (context_.plan.sample_rate >= 1) return std::nullopt;
  return StepSampling{.rate = context_.plan.sample_rate,
                      .seed = context_.plan.seed,
                      .step = step,
                      .skipped = &skipped_,
                      .neighbours = context_.neighbours,
                      .measure_recall = context_.plan.MeasuresRecall(step)};
}

absl::Status StepRecorder::CatchUpClasses(int64_t steps_done) {
  if (context_.plan.sample_rate >= 1) return absl::OkStatus();
  skipped_.MoveTo(steps_done);
  return AgreeOk(context_.comm, head_.CatchUpAll(skipped_));
}

void StepRecorder::Count(const StepResult& result, int64_t global_rows, double lr, double seconds) {
  rates_.push_back(lr);
  cost_ = {.global_rows = global_rows, .seconds = seconds, .phases = result.phase_seconds, .comm = &context_.comm};
  phase_seconds_ += result.phase_seconds;
  samples_in_window_ += global_rows;
}

void StepRecorder::CountFailure(const absl::Status& status) {
  for (JobObserver* observer : context_.observers) observer->OnStepFailed(status);
}

v1::StepMetrics StepRecorder::MetricsOf(int64_t step, int64_t epoch, double lr, const StepResult& result) const {
  v1::StepMetrics metrics;
  metrics.set_step(static_cast<int32_t>(step + 1));
  metrics.set_epoch(static_cast<int32_t>(epoch));
  metrics.set_loss(result.loss);
  metrics.set_lr(lr);
  metrics.set_samples_per_second(static_cast<double>(samples_in_window_) / SecondsSince(window_start_));
  metrics.set_support_vector_ratio(result.support_vector_ratio);
  metrics.set_label_cosine(result.label_cosine);
  if (result.support_vector_recall.has_value()) metrics.set_support_vector_recall(*result.support_vector_recall);
  return metrics;
}

void StepRecorder::WriteLine(const v1::StepMetrics& metrics, bool ends) {
  const bool due = ends || metrics.has_support_vector_recall();
  if (!due && metrics.step() % context_.train.log_every_steps() != 0) return;
  if (context_.metrics != nullptr) output_status_ = context_.metrics->Append(metrics);
  StartWindow();
}

void StepRecorder::ReplaceLine(const v1::StepMetrics& metrics) {
  if (context_.metrics != nullptr && output_status_.ok()) output_status_ = context_.metrics->ReplaceLast(metrics);
}

void StepRecorder::TellStep(const v1::StepMetrics& metrics) {
  for (JobObserver* observer : context_.observers) observer->OnStep(metrics, cost_);
}

bool StepRecorder::CheckpointIsDue(int64_t step) const {
  const int64_t every = context_.train.checkpoint().every_steps();
  return IsLast(step) || (every > 0 && (step + 1) % every == 0);
}

absl::Status StepRecorder::WriteCheckpoint(int64_t steps_done, Writing writing) {
  const Pause pause(*this);
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context_.comm, context_.requests.MayWrite()));
  SHARDMAX_RETURN_IF_ERROR(head_.AgreeOnUpdate());
  SHARDMAX_RETURN_IF_ERROR(CatchUpClasses(steps_done));
  return writing == Writing::kBehind ? checkpoints_.WriteBehind(steps_done) : checkpoints_.Write(steps_done);
}

absl::Status StepRecorder::Finish() {
  if (context_.log != nullptr) {
    const PhaseSeconds& s = phase_seconds_;
    const CommStats::Counter total = context_.comm.stats().Total();
    context_.log->info(
        "seconds of the steps on rank 0: gather {:.3f}, label {:.3f}, score {:.3f}, normalise {:.3f}, backward {:.3f}, "
        "scatter {:.3f}; {} collectives took {:.3f} s and sent {} bytes",
        s.gather, s.label, s.score, s.normalise, s.backward, s.scatter, total.calls - stats_before_.calls,
        total.seconds - stats_before_.seconds, total.bytes - stats_before_.bytes);
  }
  return AgreeOk(context_.comm, output_status_);
}

}  // namespace shardmax
