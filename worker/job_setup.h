// The parts of a job, made in the order in which they can fail, each agreed on by all ranks.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "shardmax/v1/job.pb.h"
#include "worker/comm/communicator.h"
#include "worker/data/data_root.h"
#include "worker/data/dataset.h"
#include "worker/engine/make_engine.h"
#include "worker/job_run.h"
#include "worker/training_plan.h"

namespace spdlog {
class logger;
}  // namespace spdlog

namespace shardmax {

// The compute threads of this rank.
int ThreadsOfRank(const JobHost& host);

// The mapped files of a training job.
struct JobData {
  LabelledRows dataset;
  std::optional<LabelledRows> validation;
  std::string initial_weights;  // Resolved path; empty if they are drawn.
};
absl::StatusOr<JobData> OpenJobData(const JobRun& run);

// Whether every rank sees the same rows. Collective. InvalidArgument, naming the lowest rank that does not see what
// rank 0 sees, the file, and both.
absl::Status AgreeOnData(Communicator& comm, const LabelledRows& rows);

// This rank's engine, its weights still zero. FailedPrecondition: the backend is not in this build.
absl::StatusOr<EngineChoice> MakeJobEngine(const Communicator& comm, const JobHost& host,
                                           const shardmax::v1::Train& train, const TrainingPlan& plan);

// Fills the engine with the initial weights of the spec. Not collective.
absl::Status InitialiseWeights(Engine& engine, const shardmax::v1::Train& train, const std::string& weights_path);

// Fills the engine from the newest valid checkpoint and returns its step, or 0 if there is none. Says in `log` (null
// but on rank 0) which folders were rejected and why. Collective. InvalidArgument: the checkpoint is of another job:
// other classes, width or optimizer.
absl::StatusOr<int64_t> RestoreNewest(Communicator& comm, Engine& engine, const shardmax::v1::Train& train,
                                      const std::string& checkpoints_folder, spdlog::logger* log);

}  // namespace shardmax
