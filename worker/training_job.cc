#include "worker/training_job.h"

#include <spdlog/logger.h>

#include <string>
#include <utility>

#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/training_loop.h"

namespace shardmax {

TrainingJob::TrainingJob(Communicator& comm, const JobRun& run, const JobHost& host, spdlog::logger* log)
    : comm_(comm), run_(run), host_(host), train_(run.spec.train()), log_(log), folder_(run.output_folder) {}

absl::Status TrainingJob::Prepare() {
  SHARDMAX_RETURN_IF_ERROR(FindEarlier());
  SHARDMAX_RETURN_IF_ERROR(OpenData());
  SHARDMAX_RETURN_IF_ERROR(MakePlan());
  SHARDMAX_ASSIGN_OR_RETURN(const DeviceBackend* device, AgreeOnDevice(comm_, host_));
  SHARDMAX_ASSIGN_OR_RETURN(engine_, MakeJobEngine(comm_, host_, device, train_, plan_));
  if (device != nullptr && comm_.size() > 1) {
    SHARDMAX_ASSIGN_OR_RETURN(between_devices_, device->MakeComm(comm_));
  }
  if (log_ != nullptr) {
    log_->info("{} classes x {}, {} rows, {} steps on {} ranks; {}", train_.num_classes(), train_.dim(),
               data_->dataset.rows(), plan_.total_steps, comm_.size(), engine_.description);
  }
  SHARDMAX_RETURN_IF_ERROR(FillWeights());
  // Not before the weights are there: a folder that cannot be resumed keeps its spec and metrics.
  return AgreeOk(comm_, comm_.rank() == 0 ? OpenRecords() : absl::OkStatus());
}

absl::StatusOr<bool> TrainingJob::Run() {
  TrainingLoop loop({.comm = between_devices_ != nullptr ? *between_devices_ : comm_,
                     .engine = *engine_.engine,
                     .train = train_,
                     .plan = plan_,
                     .dataset = data_->dataset,
                     .validation = data_->validation.has_value() ? &*data_->validation : nullptr,
                     .checkpoints_folder = folder_.checkpoints_folder(),
                     .metrics = metrics_.has_value() ? &*metrics_ : nullptr,
                     .log = log_,
                     .requests = host_.requests,
                     .observers = host_.observers});
  SHARDMAX_ASSIGN_OR_RETURN(const TrainingLoop::End end, loop.Run(first_step_));
  return end == TrainingLoop::End::kFinished;
}

absl::Status TrainingJob::FindEarlier() {
  if (!run_.resume) return absl::OkStatus();
  absl::StatusOr<EarlierRun> earlier = EarlierRun();
  if (comm_.rank() == 0) earlier = FindEarlierRun(folder_, run_.spec);
  SHARDMAX_RETURN_IF_ERROR(BroadcastStatus(comm_, earlier.status(), 0));
  earlier_ = *std::move(earlier);
  SHARDMAX_ASSIGN_OR_RETURN(const std::string newest, BroadcastString(comm_, earlier_.newest, 0));
  resumes_ = !newest.empty();
  if (log_ == nullptr) return absl::OkStatus();
  if (!resumes_) {
    log_->info("--resume: no checkpoint in {}, starting from the first step", folder_.checkpoints_folder());
  } else if (!earlier_.spec.has_value()) {
    log_->warn("--resume: {} is not there to compare the job with; only the checkpoint is", folder_.spec_path());
  }
  return absl::OkStatus();
}

absl::Status TrainingJob::OpenData() {
  auto data = OpenJobData(run_, !resumes_);
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm_, data.status()));
  data_.emplace(*std::move(data));
  SHARDMAX_RETURN_IF_ERROR(AgreeOnData(comm_, data_->dataset));
  if (!data_->validation.has_value()) return absl::OkStatus();
  SHARDMAX_RETURN_IF_ERROR(AgreeOnData(comm_, *data_->validation));
  // Else they would be found when the first epoch ends. Those of the dataset are when their batch is read.
  const Range mine = BalancedPart(data_->validation->rows(), comm_.rank(), comm_.size());
  return AgreeOk(comm_, data_->validation->Check(mine));
}

absl::Status TrainingJob::MakePlan() {
  const BatchPlan batches(data_->dataset.rows(), train_.batch_size(), train_.dataset().shuffle(), train_.init().seed());
  const int64_t steps_per_epoch = batches.steps_per_epoch();
  SHARDMAX_ASSIGN_OR_RETURN(plan_, MakeTrainingPlan(train_, steps_per_epoch));
  return BroadcastStatus(comm_, CheckLength(folder_, earlier_, train_, plan_.total_steps, steps_per_epoch), 0);
}

absl::Status TrainingJob::FillWeights() {
  Engine& engine = *engine_.engine;
  if (!resumes_) return AgreeOk(comm_, InitialiseWeights(engine, train_, data_->initial_weights));
  SHARDMAX_ASSIGN_OR_RETURN(
      first_step_, RestoreNewest(comm_, engine, train_, plan_.total_steps, folder_.checkpoints_folder(), log_));
  return absl::OkStatus();
}

absl::Status TrainingJob::OpenRecords() {
  SHARDMAX_RETURN_IF_ERROR(folder_.WriteSpec(run_.spec));
  SHARDMAX_ASSIGN_OR_RETURN(MetricsLog metrics, MetricsLog::Open(folder_, first_step_));
  metrics_.emplace(std::move(metrics));
  return absl::OkStatus();
}

}  // namespace shardmax
