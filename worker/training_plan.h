// A resolved job spec in the terms of the layers that carry it out.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "shardmax/v1/job.pb.h"
#include "worker/engine/engine.h"
#include "worker/loss/loss_params.h"
#include "worker/optim/schedule.h"
#include "worker/optim/update_rule.h"

namespace shardmax {

struct TrainingPlan {
  int64_t total_steps = 0;
  LossParams loss;
  int64_t loss_warmup_steps = 0;
  OptimizerParams optimizer;
  Schedule schedule;
  Precision precision = Precision::kFloat32;
  double sample_rate = 1;  // Below 1: the head is sampled.
  uint32_t seed = 1;

  LossParams LossAt(int64_t step) const { return WarmedUp(loss, step, loss_warmup_steps); }
  UpdateRule RuleAt(int64_t step) const { return UpdateRule::At(optimizer, schedule.At(step), step); }
};

// T, the steps of a job whose dataset has `steps_per_epoch`. `train` is resolved (worker/spec), here and below.
int64_t TotalSteps(const shardmax::v1::Train& train, int64_t steps_per_epoch);

// FailedPrecondition, naming the field: what only the size of the dataset can tell, epochs that give too many steps.
absl::StatusOr<TrainingPlan> MakeTrainingPlan(const shardmax::v1::Train& train, int64_t steps_per_epoch);

// Where the engine of each of `ranks` ranks keeps cosines: train.cosines, or for AUTO what fits the memory and changes
// less than the precision of the job. Alike on every rank. `train` is resolved.
CosineStorage CosineStorageOf(const shardmax::v1::Train& train, int ranks);

}  // namespace shardmax
