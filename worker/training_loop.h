// The steps of a training job whose rows come from a dataset.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/dataset.h"
#include "worker/head/sharded_head.h"
#include "worker/step_recorder.h"

namespace shardmax {

class TrainingLoop {
 public:
  // `validation` may be null. Borrows everything.
  TrainingLoop(const LoopContext& context, const LabelledRows& dataset, const LabelledRows* validation);

  // Trains from `first_step` to the last step, or to a request to stop on any rank, and writes a checkpoint there.
  // Collective; all ranks return alike. Aborted: a rank was asked to abandon the job, or may not write any more.
  absl::StatusOr<LoopEnd> Run(int64_t first_step);

 private:
  absl::StatusOr<LoopEnd> RunSteps(int64_t first_step);
  absl::StatusOr<StepResult> Step(int64_t step);
  // What follows a step: its line in metrics.jsonl, a checkpoint, the held-out top-1, where they are due.
  absl::Status Record(int64_t step, const StepResult& result);
  // Validates after `first_step` steps if the run that made them was ended before it could.
  absl::Status MakeUpForValidation(int64_t first_step);
  // Adds the held-out top-1 to `metrics`, which is the last line of metrics.jsonl.
  absl::Status Validate(int64_t steps_done, shardmax::v1::StepMetrics& metrics);
  bool EndsEpoch(int64_t step) const;  // Of an epoch or of the job.
  // This rank's rows of the batch that has `rows` rows, row i of it being dataset row row_at(i).
  template <typename RowAt>
  StepInput ReadRows(const LabelledRows& dataset, int64_t rows, const RowAt& row_at);
  StepInput RowsOf(int64_t step);
  absl::StatusOr<double> ValidationTop1();

  const LoopContext context_;
  const LabelledRows& dataset_;
  const LabelledRows* const validation_;
  BatchPlan batches_;
  ShardedHead head_;
  StepRecorder recorder_;
  // Of the rows read last. The head reads the next step's on a thread of its own, within Step.
  std::vector<int64_t> row_ids_;
  std::vector<float> features_;
  std::vector<int32_t> labels_;
};

}  // namespace shardmax
