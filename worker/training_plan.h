// A resolved job spec in the terms of the layers that carry it out.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "shardmax/v1/job.pb.h"
#include "worker/engine/engine.h"
#include "worker/loss/loss_params.h"
#include "worker/optim/schedule.h"
#include "worker/optim/update_rule.h"

namespace shardmax {

// How the graph of nearest classes is made (worker/head/neighbour_scan.h).
struct NearestPlan {
  int64_t neighbours = 0;
  int64_t rebuild_every_steps = 1;
  bool builds_first = false;  // Before step 0 too.

  // Whether a graph is built before `step`, counted from 0.
  bool BuildsBefore(int64_t step) const { return step % rebuild_every_steps == 0 && (step > 0 || builds_first); }
  // Whether there is one when `steps_done` steps are done, of which the next builds none.
  bool IsBuiltAfter(int64_t steps_done) const { return steps_done > (builds_first ? 0 : rebuild_every_steps); }
};

struct TrainingPlan {
  int64_t total_steps = 0;
  LossParams loss;
  int64_t loss_warmup_steps = 0;
  OptimizerParams optimizer;
  Schedule schedule;
  Precision precision = Precision::kFloat32;
  double sample_rate = 1;              // Below 1: the head is sampled.
  std::optional<NearestPlan> nearest;  // Of a sampled head.
  int64_t recall_every_steps = 0;      // 0: never.
  uint32_t seed = 1;

  LossParams LossAt(int64_t step) const { return WarmedUp(loss, step, loss_warmup_steps); }
  bool MeasuresRecall(int64_t step) const { return recall_every_steps > 0 && (step + 1) % recall_every_steps == 0; }
  UpdateRule RuleAt(int64_t step) const { return UpdateRule::At(optimizer, schedule.At(step), step); }
};

// T, the steps of a job whose dataset has `steps_per_epoch`. `train` is resolved (worker/spec), here and below.
int64_t TotalSteps(const shardmax::v1::Train& train, int64_t steps_per_epoch);

// FailedPrecondition, naming the field: what only the size of the dataset can tell, epochs that give too many steps.
absl::StatusOr<TrainingPlan> MakeTrainingPlan(const shardmax::v1::Train& train, int64_t steps_per_epoch);

// FailedPrecondition, naming the field: the job ends before its first graph of nearest classes.
absl::Status CheckFirstGraph(const TrainingPlan& plan);

// Where the engine of each of `ranks` ranks keeps cosines: train.cosines, or for AUTO what fits the memory and changes
// less than the precision of the job. Alike on every rank. `train` is resolved.
CosineStorage CosineStorageOf(const shardmax::v1::Train& train, int ranks);

}  // namespace shardmax
