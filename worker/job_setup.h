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

namespace shardmax {

// The compute threads of this rank.
int ThreadsOfRank(const JobHost& host);

// The mapped files of a training job with a dataset; with its `initial_weights`, or without as where a checkpoint has
// them. Not collective.
struct JobData {
  LabelledRows dataset;
  std::optional<LabelledRows> validation;
  std::string initial_weights;  // Resolved path; empty if they are drawn, or not asked for.
};
absl::StatusOr<JobData> OpenJobData(const JobRun& run, bool initial_weights);

// The resolved path of the initial weights; empty if they are drawn. Not collective.
absl::StatusOr<std::string> FindInitialWeights(const JobRun& run);

// Whether every rank sees the same rows. Collective. InvalidArgument, naming the lowest rank that does not see what
// rank 0 sees, the file, and both.
absl::Status AgreeOnData(Communicator& comm, const LabelledRows& rows);

// The devices that all ranks compute on, or null: the host. Collective; all ranks return alike. The backend "auto"
// takes devices if every rank sees one.
absl::StatusOr<const DeviceBackend*> AgreeOnDevice(Communicator& comm, const JobHost& host);

// This rank's engine, its weights still zero; on the host if `device` is null. Files of train.storage are made in
// `storage_folder`, where all others are removed; the folder is gone afterwards. Collective.
absl::StatusOr<EngineChoice> MakeJobEngine(Communicator& comm, const JobHost& host, const DeviceBackend* device,
                                           const shardmax::v1::Train& train, const TrainingPlan& plan,
                                           const std::string& storage_folder);

// Fills the engine with the initial weights of the spec. Not collective.
absl::Status InitialiseWeights(Engine& engine, const shardmax::v1::Train& train, const std::string& weights_path);

// Sets the optimizer's state to that before the first step. Not collective.
absl::Status ClearOptimizer(Engine& engine);

}  // namespace shardmax
