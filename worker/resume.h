// Going on with the job of a folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardmax/v1/job.pb.h"
#include "worker/comm/communicator.h"
#include "worker/job_folder.h"
#include "worker/job_tensors.h"
#include "worker/training_plan.h"

namespace spdlog {
class logger;
}  // namespace spdlog

namespace shardmax {

// What a folder holds of the job before. Made by rank 0.
struct EarlierRun {
  std::string newest;                         // Name of its newest checkpoint, valid or not; empty: there is none.
  std::optional<shardmax::v1::JobSpec> spec;  // Of job.json, if there is a checkpoint.
};

// Looks into `folder`. FailedPrecondition, with every field: its steps were made with a spec that `spec` must not
// differ from (worker/spec/resume_rules.h). Or the system's error; or InvalidArgument: job.json is damaged.
absl::StatusOr<EarlierRun> FindEarlierRun(const JobFolder& folder, const shardmax::v1::JobSpec& spec);

// FailedPrecondition: going on with T = `steps_now` would change the rates of the steps of `earlier`. `steps_per_epoch`
// is that of the dataset.
absl::Status CheckLength(const JobFolder& folder, const EarlierRun& earlier, const shardmax::v1::Train& now,
                         int64_t steps_now, int64_t steps_per_epoch);

// Fills engine and graph from the newest valid checkpoint and returns its step. Says in `log` (null but on rank 0)
// which folders were rejected and why. Collective. FailedPrecondition: the checkpoint has other classes, width,
// optimizer state or neighbours than the job, or more steps. DataLoss, with the reason of each: none is valid.
absl::StatusOr<int64_t> RestoreNewest(Communicator& comm, const JobTensors& tensors, const shardmax::v1::Train& train,
                                      const TrainingPlan& plan, const std::string& checkpoints_folder,
                                      spdlog::logger* log);

// Fills engine and graph from the checkpoint after `step` steps, 1 or more. Collective. NotFound: there is no whole one
// that fits the job, and the engine is as it was. After any other error it is not to be used.
absl::Status RestoreStep(Communicator& comm, const JobTensors& tensors, const shardmax::v1::Train& train,
                         const TrainingPlan& plan, const std::string& checkpoints_folder, int32_t step);

}  // namespace shardmax
