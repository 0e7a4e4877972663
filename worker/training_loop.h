// The steps of a training job, from the data to metrics and checkpoints.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "shardmax/v1/job.pb.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/comm/communicator.h"
#include "worker/data/dataset.h"
#include "worker/engine/engine.h"
#include "worker/head/sharded_head.h"
#include "worker/job_events.h"
#include "worker/job_folder.h"
#include "worker/training_plan.h"

namespace shardmax {

// Everything a loop works with; the owner outlives it.
struct TrainingContext {
  Communicator& comm;
  Engine& engine;
  const shardmax::v1::Train& train;  // Resolved.
  const TrainingPlan& plan;
  const LabelledRows& dataset;
  const LabelledRows* validation;  // May be null.
  std::string checkpoints_folder;
  MetricsLog* metrics;  // Null but on rank 0, as is `log`.
  spdlog::logger* log;
  JobRequests& requests;
  std::vector<JobObserver*> observers;
};

class TrainingLoop {
 public:
  explicit TrainingLoop(const TrainingContext& context);

  enum class End { kFinished, kStopped };

  // Trains from `first_step` to the last step, or to a request to stop on any rank, and writes a checkpoint there.
  // Collective; all ranks return alike. Aborted: a rank was asked to abandon the job, or may not write any more.
  absl::StatusOr<End> Run(int64_t first_step);

 private:
  absl::StatusOr<StepResult> Step(int64_t step);
  // What follows a step: its line in metrics.jsonl, a checkpoint, the held-out top-1, where they are due.
  absl::Status Record(int64_t step, const StepResult& result);
  // Validates after `first_step` steps if the run that made them was ended before it could.
  absl::Status MakeUpForValidation(int64_t first_step);
  // Of a sampled head: brings every class to `steps_done` steps, before all are read.
  absl::Status CatchUpClasses(int64_t steps_done);
  // Adds the held-out top-1 to `metrics`, which is the last line of metrics.jsonl.
  absl::Status Validate(int64_t steps_done, shardmax::v1::StepMetrics& metrics);
  bool IsLast(int64_t step) const;
  bool EndsEpoch(int64_t step) const;  // Of an epoch or of the job.
  // This rank's rows of the batch that has `rows` rows, row i of it being dataset row row_at(i).
  template <typename RowAt>
  StepInput ReadRows(const LabelledRows& dataset, int64_t rows, const RowAt& row_at);
  absl::StatusOr<double> ValidationTop1();
  shardmax::v1::StepMetrics MetricsOf(int64_t step, const StepResult& result) const;
  absl::Status WriteCheckpoint(int64_t steps_done);
  // Says in the log where the time of the steps went.
  void LogPhases() const;

  TrainingContext context_;
  BatchPlan batches_;
  ShardedHead head_;
  SkippedSteps skipped_;
  std::vector<int64_t> row_ids_;
  std::vector<float> features_;
  std::vector<int32_t> labels_;
  absl::Status output_status_;  // Of rank 0's last write; travels with the next step.
  StepCost cost_;               // Of the newest step.
  PhaseSeconds phase_seconds_;  // Of all steps on this rank.
  CommStats::Counter stats_before_;
  // Since the last line of metrics.jsonl; the time of checkpoints and validations is not in it.
  int64_t samples_in_window_ = 0;
  std::chrono::steady_clock::time_point window_start_;
};

}  // namespace shardmax
