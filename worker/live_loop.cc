#include "worker/live_loop.h"

#include <spdlog/logger.h>

#include <algorithm>
#include <span>
#include <utility>

#include "worker/base/status.h"
#include "worker/checkpoint/folders.h"
#include "worker/live/step_answers.h"

namespace shardmax {
namespace {

double SecondsFrom(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

LiveLoop::LiveLoop(const LoopContext& context, LiveLoopOptions options)
    : context_(context),
      options_(std::move(options)),
      head_(context.comm, context.engine, context.train.num_classes()),
      recorder_(context_, head_) {}

absl::StatusOr<LoopEnd> LiveLoop::Run(int64_t first_step) {
  steps_done_ = first_step;
  recorder_.Start(first_step);
  options_.desk.Open(options_.job, first_step);
  ListCheckpoints();
  if (context_.log != nullptr) {
    context_.log->info("waiting for {} trainers, after {} steps", options_.job.trainers, first_step);
  }
  absl::StatusOr<LoopEnd> end = RunSteps();
  // What is wrong now does not concern the steps up to the checkpoint that is still written.
  if (!end.ok() && !absl::IsAborted(end.status())) recorder_.checkpoints().Finish().IgnoreError();
  if (end.ok() && told_last_) {
    if (const absl::Status waited = AwaitLastAnswers(); !waited.ok()) end = waited;
  }
  CloseDesk(end);
  if (!end.ok()) return end;
  SHARDMAX_RETURN_IF_ERROR(recorder_.Finish());
  return end;
}

void LiveLoop::CloseDesk(const absl::StatusOr<LoopEnd>& end) {
  absl::Status status;
  if (!end.ok()) {
    // Of the weights or the spec: it would end alike elsewhere.
    const bool own_fault = absl::IsFailedPrecondition(end.status()) || absl::IsInvalidArgument(end.status());
    status = Error(own_fault ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kUnavailable,
                   "the job ends here: {}", Message(end.status()));
  } else if (*end == LoopEnd::kStopped && !told_last_) {
    status = Error(absl::StatusCode::kUnavailable, "the job was told to stop after {} steps", steps_done_);
  }
  options_.desk.Close(status);
}

absl::Status LiveLoop::AwaitLastAnswers() {
  const Clock::time_point deadline = Clock::now() + options_.last_answer_wait;
  for (;;) {
    RankNotice mine;
    mine.unreceived = options_.desk.AwaitReceived(std::min(deadline, Clock::now() + options_.period));
    mine.overdue = Clock::now() >= deadline ? 1 : 0;
    mine.requests = context_.requests.Take();
    SHARDMAX_RETURN_IF_ERROR(AgreeOnNotices(options_.meeting_comm, mine, absl::OkStatus(), notices_));
    const Meeting meeting = Conclude(notices_, options_.job.shape.max_rows);
    if ((meeting.requests & kRequestAbandon) != 0) {
      return Error(absl::StatusCode::kAborted, "after the last step: the job was taken away from this run");
    }
    if (meeting.unreceived == 0 || (meeting.requests & kRequestStop) != 0) return absl::OkStatus();
    if (!meeting.overdue) continue;
    if (context_.log != nullptr) {
      context_.log->warn("{} trainers have not said that they have the answer to the last step", meeting.unreceived);
    }
    return absl::OkStatus();
  }
}

absl::StatusOr<Meeting> LiveLoop::Meet() {
  options_.desk.Await(Clock::now() + options_.period);
  RankNotice mine = options_.desk.Offer();
  mine.requests = context_.requests.Take() | recorder_.checkpoints().requests();
  mine.overdue = (requests_ & kRequestStop) != 0 && Clock::now() >= stop_from_ + options_.stop_grace ? 1 : 0;
  // A full disk is not the trainers' fault: it ends the job, as it does with a dataset.
  SHARDMAX_RETURN_IF_ERROR(AgreeOnNotices(options_.meeting_comm, mine, recorder_.output_status(), notices_));
  Meeting meeting = Conclude(notices_, options_.job.shape.max_rows);
  if ((meeting.requests & kRequestStop) != 0 && (requests_ & kRequestStop) == 0) stop_from_ = Clock::now();
  requests_ |= meeting.requests & ~kStillWriting;
  return meeting;
}

absl::StatusOr<LoopEnd> LiveLoop::RunSteps() {
  wait_from_ = Clock::now();
  while (steps_done_ < context_.plan.total_steps) {
    SHARDMAX_ASSIGN_OR_RETURN(const Meeting meeting, Meet());
    if ((requests_ & kRequestAbandon) != 0) {
      return Error(absl::StatusCode::kAborted, "step {}: the job was taken away from this run", steps_done_ + 1);
    }
    if (meeting.step && meeting.refusal.ok()) {
      const bool stops = (requests_ & kRequestStop) != 0;
      SHARDMAX_RETURN_IF_ERROR(Step(meeting));
      if (stops && steps_done_ < context_.plan.total_steps) return LoopEnd::kStopped;
      continue;
    }
    SHARDMAX_RETURN_IF_ERROR(PublishWritten(meeting));
    if (meeting.load_agreed) {
      SHARDMAX_RETURN_IF_ERROR(Load(meeting.load));
    } else if (meeting.step) {
      options_.desk.Refuse(meeting.refusal);
    } else {
      options_.desk.Withdraw(meeting.load);
    }
    const bool stop_now = (requests_ & kRequestStop) != 0 && (meeting.overdue || !meeting.all_connected);
    if ((requests_ & kRequestCheckpoint) != 0 || stop_now) SHARDMAX_RETURN_IF_ERROR(WriteCheckpoint(stop_now));
    if (stop_now) return LoopEnd::kStopped;
  }
  return LoopEnd::kFinished;
}

absl::Status LiveLoop::WriteCheckpoint(bool at_once) {
  requests_ &= ~kRequestCheckpoint;
  JobCheckpoints& checkpoints = recorder_.checkpoints();
  if (at_once) SHARDMAX_RETURN_IF_ERROR(checkpoints.Finish());
  // Of the initial weights there is nothing to keep, and what is there need not be written again.
  if (checkpoints.snapshot_step() != steps_done_) {
    using Writing = StepRecorder::Writing;
    SHARDMAX_RETURN_IF_ERROR(recorder_.WriteCheckpoint(steps_done_, at_once ? Writing::kAtOnce : Writing::kBehind));
  }
  ListCheckpoints();
  return absl::OkStatus();
}

absl::Status LiveLoop::PublishWritten(const Meeting& meeting) {
  const int64_t before = recorder_.checkpoints().newest_step();
  SHARDMAX_RETURN_IF_ERROR(recorder_.checkpoints().AfterStep(meeting.requests));
  if (recorder_.checkpoints().newest_step() != before) ListCheckpoints();
  return absl::OkStatus();
}

void LiveLoop::ListCheckpoints() {
  absl::StatusOr<std::vector<int32_t>> steps = ListSteps(context_.checkpoints_folder);
  if (!steps.ok()) return;  // What cannot be listed can still be asked for.
  std::ranges::sort(*steps);
  options_.desk.SetCheckpoints(*std::move(steps));
}

absl::Status LiveLoop::Load(int32_t step) {
  // It may be the one that is asked for.
  SHARDMAX_RETURN_IF_ERROR(recorder_.checkpoints().Finish());
  const absl::Status loaded = options_.load(step);
  if (absl::IsNotFound(loaded)) {
    options_.desk.RefuseLoad(loaded);
    return absl::OkStatus();
  }
  SHARDMAX_RETURN_IF_ERROR(Annotate(loaded, fmt::format("going back to step {}", step)));
  steps_done_ = step;
  recorder_.GoBack(step);
  if (context_.log != nullptr) context_.log->info("the trainers go back to step {}", step);
  ListCheckpoints();
  options_.desk.AnswerLoad(step);
  wait_from_ = Clock::now();
  return absl::OkStatus();
}

StepInput LiveLoop::Gather(const Steps& steps, const Meeting& meeting) {
  const int64_t dim = options_.job.shape.dim;
  const int64_t rows = meeting.rank_rows[context_.comm.rank()];
  StepInput input;
  input.global_rows = meeting.rows;
  input.rank_rows = meeting.rank_rows;
  if (steps.size() == 1) {
    input.features = {steps[0]->features.data(), rows, dim};
    input.labels = steps[0]->labels;
  } else {
    features_.clear();
    labels_.clear();
    for (const auto& step : steps) {
      features_.insert(features_.end(), step->features.begin(), step->features.end());
      labels_.insert(labels_.end(), step->labels.begin(), step->labels.end());
    }
    input.features = {features_.data(), rows, dim};
    input.labels = labels_;
  }
  return input;
}

absl::StatusOr<StepResult> LiveLoop::Make(const Steps& steps, const Meeting& meeting, double lr) {
  const Clock::time_point start = Clock::now();
  SHARDMAX_RETURN_IF_ERROR(recorder_.PrepareSampling(steps_done_));
  StepInput input = Gather(steps, meeting);
  input.loss = context_.plan.LossAt(steps_done_);
  input.rule = UpdateRule::At(context_.plan.optimizer, lr, steps_done_);
  input.sampling = recorder_.SamplingOf(steps_done_);
  auto result = head_.Step(input);
  if (!result.ok()) {
    recorder_.CountFailure(result.status());
    return Annotate(result.status(), fmt::format("step {}", steps_done_ + 1));
  }
  recorder_.Count(*result, meeting.rows, lr, SecondsFrom(start));
  return result;
}

absl::Status LiveLoop::Step(const Meeting& meeting) {
  if (LiveObserver* observer = options_.desk.observer(); observer != nullptr) {
    observer->OnWaited(SecondsFrom(wait_from_));
  }
  const int64_t step = steps_done_;
  const double lr = meeting.lr.value_or(context_.plan.schedule.At(step));
  const Steps steps = options_.desk.Take();
  SHARDMAX_ASSIGN_OR_RETURN(const StepResult result, Make(steps, meeting, lr));
  ++steps_done_;

  const v1::StepMetrics metrics = recorder_.MetricsOf(step, /*epoch=*/0, lr, result);
  const bool last = recorder_.IsLast(step) || (requests_ & kRequestStop) != 0;
  const bool at_once = meeting.checkpoint || last;
  const bool checkpoint = at_once || meeting.checkpoint_behind || requests_ != 0 || recorder_.CheckpointIsDue(step);
  const auto answer = [&] {
    const StepSummary summary = {.metrics = metrics,
                                 .global_rows = meeting.rows,
                                 .counted_rows = result.counted_rows,
                                 .checkpoint_step = recorder_.checkpoints().newest_step(),
                                 .snapshot_step = recorder_.checkpoints().snapshot_step(),
                                 .last = last};
    options_.desk.Answer(MakeAnswers(summary, steps, result.feature_gradients), last);
    told_last_ = last;
    wait_from_ = Clock::now();
  };
  // The trainers compute while the line is written.
  if (!checkpoint) answer();
  recorder_.WriteLine(metrics, recorder_.IsLast(step));
  SHARDMAX_RETURN_IF_ERROR(PublishWritten(meeting));
  if (checkpoint) {
    SHARDMAX_RETURN_IF_ERROR(WriteCheckpoint(at_once));
    answer();
  }
  recorder_.TellStep(metrics);
  return absl::OkStatus();
}

}  // namespace shardmax
