// What follows the steps of a training job, wherever its rows come from: metrics, checkpoints, observers, the log.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "shardmax/v1/job.pb.h"
#include "worker/comm/communicator.h"
#include "worker/engine/engine.h"
#include "worker/head/sharded_head.h"
#include "worker/job_checkpoints.h"
#include "worker/job_events.h"
#include "worker/loop_context.h"

namespace shardmax {

enum class LoopEnd { kFinished, kStopped };

class StepRecorder {
 public:
  // Borrows both.
  StepRecorder(const LoopContext& context, ShardedHead& head);
  StepRecorder(const StepRecorder&) = delete;
  StepRecorder& operator=(const StepRecorder&) = delete;

  // Tells the observers, and begins to count, when the weights are there after `first_step` steps.
  void Start(int64_t first_step);
  // Begins the time that samples_per_second is measured over.
  void StartWindow();
  // Goes back to the step that the weights are of now: lines of metrics.jsonl beyond it are dropped.
  void GoBack(int64_t step);

  // A step was made of `global_rows` rows with rate `lr` in `seconds`; or failed.
  void Count(const StepResult& result, int64_t global_rows, double lr, double seconds);
  void CountFailure(const absl::Status& status);

  // Of `step`, counted from 0, which was counted last.
  shardmax::v1::StepMetrics MetricsOf(int64_t step, int64_t epoch, double lr, const StepResult& result) const;
  // Builds the graph of nearest classes if `step` wants a new one. Collective, as the next.
  absl::Status PrepareSampling(int64_t step);
  // Which classes take part in `step`, which was prepared.
  std::optional<StepSampling> SamplingOf(int64_t step);
  // Of a sampled head: brings every class to `steps_done` steps, before all are read. Collective.
  absl::Status CatchUpClasses(int64_t steps_done);

  // Writes the line if it is due: if the step `ends` something (an epoch, the job), measured a recall, or by
  // log_every_steps.
  void WriteLine(const shardmax::v1::StepMetrics& metrics, bool ends);
  // Writes `metrics` over the last line.
  void ReplaceLine(const shardmax::v1::StepMetrics& metrics);
  void TellStep(const shardmax::v1::StepMetrics& metrics);

  bool IsLast(int64_t step) const { return step + 1 == context_.plan.total_steps; }
  // Whether a checkpoint follows `step` although nobody asked for one.
  bool CheckpointIsDue(int64_t step) const;
  // The checkpoint is on the disk when it returns; with kBehind the training may go on before, see JobCheckpoints.
  // Collective. The time of it counts in no samples_per_second.
  enum class Writing { kAtOnce, kBehind };
  absl::Status WriteCheckpoint(int64_t steps_done, Writing writing);
  JobCheckpoints& checkpoints() { return checkpoints_; }

  // Of the last write of metrics.jsonl, on rank 0: the next step is to carry it to the others.
  const absl::Status& output_status() const { return output_status_; }
  // Says in the log where the time of the steps went, and agrees on the output. Collective.
  absl::Status Finish();

  // Keeps the time of what runs in its life out of samples_per_second.
  class Pause {
   public:
    explicit Pause(StepRecorder& recorder) : recorder_(recorder) {}
    ~Pause() { recorder_.window_start_ += std::chrono::steady_clock::now() - start_; }
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;

   private:
    StepRecorder& recorder_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  };

 private:
  // The weights are those after `step` steps, of every class.
  void BeginAt(int64_t step);

  const LoopContext& context_;
  ShardedHead& head_;
  // The rates of the steps from first_rate_step_ on, which need not be those of the schedule.
  std::vector<double> rates_;
  int64_t first_rate_step_ = 0;
  SkippedSteps skipped_;
  JobCheckpoints checkpoints_;
  absl::Status output_status_;
  StepCost cost_;               // Of the newest step.
  PhaseSeconds phase_seconds_;  // Of all steps on this rank.
  CommStats::Counter stats_before_;
  // Since the last line of metrics.jsonl; pauses are not in it.
  int64_t samples_in_window_ = 0;
  std::chrono::steady_clock::time_point window_start_;
};

}  // namespace shardmax
