#include "worker/job_runner.h"

#include <spdlog/logger.h>

#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/evaluation_run.h"
#include "worker/folder_lock.h"
#include "worker/job_folder.h"
#include "worker/job_setup.h"
#include "worker/training_loop.h"
#include "worker/training_plan.h"

namespace shardmax {
namespace {

// How long a launch waits for the one before it to leave the folder: its ranks may outlive mpirun by a moment.
constexpr int kFolderWaitMs = 3000;

// Takes the lock of the folder unless the caller has it. Rank 0 only.
absl::Status LockFolder(const JobRun& job, std::optional<FolderLock>& lock) {
  if (job.folder_is_locked) return absl::OkStatus();
  auto taken = FolderLock::Take(job.output_folder, kFolderWaitMs, fmt::format("job {}", job.spec.name()));
  if (taken.ok()) lock.emplace(*std::move(taken));
  // A file system without locks is left to the care of people.
  return absl::IsUnimplemented(taken.status()) ? absl::OkStatus() : Annotate(taken.status(), "--output");
}

// Prepares the folder on rank 0 and opens its log; null on the other ranks. Collective.
absl::StatusOr<std::shared_ptr<spdlog::logger>> OpenFolder(Communicator& comm, const JobRun& job, const JobHost& host,
                                                           std::optional<FolderLock>& lock) {
  const JobFolder folder(job.output_folder);
  absl::Status status;
  std::shared_ptr<spdlog::logger> log;
  if (comm.rank() == 0) {
    status = folder.Prepare(job.resume);
    if (status.ok()) status = LockFolder(job, lock);
    if (status.ok()) {
      auto opened = folder.OpenLog(host.log_sinks);
      status = opened.status();
      if (opened.ok()) log = *opened;
    }
  }
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm, status));
  return log;
}

// The stages of a training job once its folder is open. All collective.
class Job {
 public:
  Job(Communicator& comm, const JobRun& run, const JobHost& host, std::shared_ptr<spdlog::logger> log)
      : comm_(comm),
        run_(run),
        host_(host),
        train_(run.spec.train()),
        folder_(run.output_folder),
        log_(std::move(log)) {}

  // False if it was asked to stop.
  absl::StatusOr<bool> Run() {
    auto data = OpenJobData(run_);
    SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm_, data.status()));
    SHARDMAX_RETURN_IF_ERROR(AgreeOnData(comm_, data->dataset));
    if (data->validation.has_value()) {
      SHARDMAX_RETURN_IF_ERROR(AgreeOnData(comm_, *data->validation));
      // Else they would be found when the first epoch ends. Those of the dataset are when their batch is read.
      const Range mine = BalancedPart(data->validation->rows(), comm_.rank(), comm_.size());
      SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm_, data->validation->Check(mine)));
    }
    const BatchPlan batches(data->dataset.rows(), train_.batch_size(), train_.dataset().shuffle(),
                            train_.init().seed());
    SHARDMAX_ASSIGN_OR_RETURN(const TrainingPlan plan, MakeTrainingPlan(train_, batches.steps_per_epoch()));
    auto engine = MakeJobEngine(comm_, host_, train_, plan);
    SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm_, engine.status()));
    if (log_ != nullptr) {
      log_->info("{} classes x {}, {} rows, {} steps on {} ranks; {}", train_.num_classes(), train_.dim(),
                 data->dataset.rows(), plan.total_steps, comm_.size(), engine->description);
    }
    SHARDMAX_ASSIGN_OR_RETURN(const int64_t first_step, FillWeights(*engine->engine, data->initial_weights));
    return Train(*engine->engine, *data, plan, first_step);
  }

 private:
  absl::StatusOr<int64_t> FillWeights(Engine& engine, const std::string& initial_weights) {
    int64_t step = 0;
    if (run_.resume) {
      SHARDMAX_ASSIGN_OR_RETURN(step, RestoreNewest(comm_, engine, train_, folder_.checkpoints_folder(), log_.get()));
    }
    if (step == 0) SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm_, InitialiseWeights(engine, train_, initial_weights)));
    return step;
  }

  // Not before the weights are there: a folder that turns out to hold another job keeps that job's spec and metrics.
  absl::Status OpenRecords(int64_t first_step, std::optional<MetricsLog>& metrics) {
    SHARDMAX_RETURN_IF_ERROR(folder_.WriteSpec(run_.spec));
    SHARDMAX_ASSIGN_OR_RETURN(MetricsLog log, MetricsLog::Open(folder_, first_step));
    metrics.emplace(std::move(log));
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Train(Engine& engine, const JobData& data, const TrainingPlan& plan, int64_t first_step) {
    std::optional<MetricsLog> metrics;
    absl::Status opened;
    if (comm_.rank() == 0) opened = OpenRecords(first_step, metrics);
    SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm_, opened));
    TrainingLoop loop({.comm = comm_,
                       .engine = engine,
                       .train = train_,
                       .plan = plan,
                       .dataset = data.dataset,
                       .validation = data.validation.has_value() ? &*data.validation : nullptr,
                       .checkpoints_folder = folder_.checkpoints_folder(),
                       .metrics = metrics.has_value() ? &*metrics : nullptr,
                       .log = log_.get(),
                       .requests = host_.requests,
                       .observers = host_.observers});
    SHARDMAX_ASSIGN_OR_RETURN(const TrainingLoop::End end, loop.Run(first_step));
    return end == TrainingLoop::End::kFinished;
  }

  Communicator& comm_;
  const JobRun& run_;
  const JobHost& host_;
  const v1::Train& train_;
  JobFolder folder_;
  std::shared_ptr<spdlog::logger> log_;
};

}  // namespace

JobEnd RunJob(Communicator& comm, const JobRun& job, const JobHost& host) {
  const bool evaluates = job.spec.has_evaluate();
  if (!evaluates) {
    const auto shard = ShardOfRank(job.spec.train().num_classes(), comm.rank(), comm.size());
    if (!shard.ok()) return {kExitInvalidUse, shard.status()};
  }
  std::optional<FolderLock> lock;
  auto log = OpenFolder(comm, job, host, lock);
  if (!log.ok()) {
    return {absl::IsAlreadyExists(log.status()) ? kExitInvalidUse : kExitJobFailed, log.status()};
  }
  const absl::StatusOr<bool> finished =
      evaluates ? RunEvaluation(comm, job, host, log->get()) : Job(comm, job, host, *log).Run();
  if (*log != nullptr) {
    if (absl::IsAborted(finished.status())) {
      (*log)->warn("left without a checkpoint: {}", Message(finished.status()));
    } else if (!finished.ok()) {
      (*log)->error("the job failed: {}", Message(finished.status()));
    } else {
      (*log)->info(*finished ? "succeeded" : "stopped on request; go on with --resume");
    }
  }
  if (!finished.ok()) return {kExitJobFailed, finished.status()};
  return {*finished ? kExitSucceeded : kExitStopped, absl::OkStatus()};
}

}  // namespace shardmax
