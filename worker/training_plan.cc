#include "worker/training_plan.h"

#include <cmath>
#include <limits>

#include "worker/base/status.h"

namespace shardmax {
namespace {

LossParams LossOf(const v1::Loss& loss) {
  LossParams params;
  params.scale = loss.scale();
  params.m1 = loss.margin().m1();
  params.m2 = loss.margin().m2();
  params.m3 = loss.margin().m3();
  params.t = loss.support_vector().t();
  params.gamma = loss.focal().gamma();
  params.keep = loss.hard_mining().keep();
  switch (loss.extension()) {
    case v1::EASY:
      params.extension = Extension::kEasy;
      break;
    case v1::LINEAR:
      params.extension = Extension::kLinear;
      break;
    default:
      params.extension = Extension::kMonotone;
  }
  return params;
}

OptimizerParams OptimizerOf(const v1::Optimizer& optimizer, uint32_t seed) {
  OptimizerParams params;
  params.state_type = optimizer.state() == v1::BFLOAT16 ? StateType::kBfloat16 : StateType::kFloat32;
  params.noise_seed = seed;
  if (optimizer.has_adamw()) {
    params.kind = OptimizerKind::kAdamW;
    params.weight_decay = optimizer.adamw().weight_decay();
    params.beta1 = optimizer.adamw().beta1();
    params.beta2 = optimizer.adamw().beta2();
    params.eps = optimizer.adamw().eps();
  } else {
    params.weight_decay = optimizer.sgd().weight_decay();
    params.momentum = optimizer.sgd().momentum();
    params.nesterov = optimizer.sgd().nesterov();
  }
  return params;
}

Schedule ScheduleOf(const v1::Schedule& schedule, int64_t total_steps) {
  Schedule result{.base_lr = schedule.base_lr(), .warmup_steps = schedule.warmup_steps(), .total_steps = total_steps};
  if (schedule.has_cosine()) {
    result.curve = ScheduleCurve::kCosine;
    result.end_lr = schedule.cosine().end_lr();
  } else if (schedule.has_polynomial()) {
    result.curve = ScheduleCurve::kPolynomial;
    result.end_lr = schedule.polynomial().end_lr();
    result.power = schedule.polynomial().power();
  } else if (schedule.has_step()) {
    result.curve = ScheduleCurve::kStep;
    result.gamma = schedule.step().gamma();
    result.milestones.assign(schedule.step().milestones().begin(), schedule.step().milestones().end());
  }
  return result;
}

double SampleRateOf(const v1::Train& train) {
  if (!train.has_sampling()) return 1;
  return train.sampling().has_nearest() ? train.sampling().nearest().rate() : train.sampling().random().rate();
}

// With a rate of 1 all classes take part, and which are near makes no difference.
std::optional<NearestPlan> NearestOf(const v1::Train& train) {
  if (SampleRateOf(train) >= 1 || !train.sampling().has_nearest()) return std::nullopt;
  const v1::NearestSampling& nearest = train.sampling().nearest();
  return NearestPlan{.neighbours = nearest.neighbours(),
                     .rebuild_every_steps = nearest.rebuild_every_steps(),
                     .builds_first = train.init().has_weights()};
}

}  // namespace

int64_t TotalSteps(const v1::Train& train, int64_t steps_per_epoch) {
  return train.has_steps() ? train.steps() : train.epochs() * steps_per_epoch;
}

absl::StatusOr<TrainingPlan> MakeTrainingPlan(const v1::Train& train, int64_t steps_per_epoch) {
  TrainingPlan plan;
  plan.total_steps = TotalSteps(train, steps_per_epoch);
  if (plan.total_steps > std::numeric_limits<int32_t>::max()) {
    return Error(absl::StatusCode::kFailedPrecondition,
                 "train.epochs is {}: with {} steps an epoch that is {} steps, allowed are at most {}", train.epochs(),
                 steps_per_epoch, plan.total_steps, std::numeric_limits<int32_t>::max());
  }
  plan.loss = LossOf(train.loss());
  plan.loss_warmup_steps = train.loss().warmup_steps();
  plan.optimizer = OptimizerOf(train.optimizer(), train.init().seed());
  plan.schedule = ScheduleOf(train.schedule(), plan.total_steps);
  plan.precision = train.precision() == v1::BFLOAT16 ? Precision::kBfloat16 : Precision::kFloat32;
  plan.sample_rate = SampleRateOf(train);
  plan.nearest = NearestOf(train);
  if (plan.sample_rate < 1) plan.recall_every_steps = train.sampling().recall_every_steps();
  plan.seed = train.init().seed();
  return plan;
}

absl::Status CheckFirstGraph(const TrainingPlan& plan) {
  if (!plan.nearest.has_value() || plan.nearest->IsBuiltAfter(plan.total_steps)) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition,
               "train.sampling.nearest.rebuild_every_steps is {}: allowed without train.init.weights is less than the "
               "steps of the job, which are {}, as the first graph is built then",
               plan.nearest->rebuild_every_steps, plan.total_steps);
}

CosineStorage CosineStorageOf(const v1::Train& train, int ranks) {
  switch (train.cosines()) {
    case v1::RECOMPUTE:
      return CosineStorage::kRecompute;
    case v1::KEEP_INT16:
      return CosineStorage::kKeepInt16;
    case v1::KEEP_FLOAT32:
      return CosineStorage::kKeepFloat32;
    default:
      break;
  }
  const bool bfloat16 = train.precision() == v1::BFLOAT16;
  const int64_t of_rank = (train.num_classes() + int64_t{ranks} - 1) / ranks;
  const auto classes = static_cast<int64_t>(std::ceil(static_cast<double>(of_rank) * SampleRateOf(train)));
  const int64_t columns = (train.batch_size() + int64_t{15}) / 16 * 16;
  const bool fits = classes * columns * (bfloat16 ? 2 : 4) <= int64_t{train.cosines_memory_mib()} << 20;
  if (!fits) return CosineStorage::kRecompute;
  return bfloat16 ? CosineStorage::kKeepInt16 : CosineStorage::kKeepFloat32;
}

}  // namespace shardmax
