// The stages of a training job, whose folder is open.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"
#include "worker/engine/make_engine.h"
#include "worker/head/neighbour_graph.h"
#include "worker/job_folder.h"
#include "worker/job_run.h"
#include "worker/job_setup.h"
#include "worker/job_tensors.h"
#include "worker/live/desk.h"
#include "worker/resume.h"
#include "worker/training_plan.h"

namespace spdlog {
class logger;
}  // namespace spdlog

namespace shardmax {

// Borrows its arguments. `log` is null but on rank 0. All methods are collective; all ranks return alike.
class TrainingJob {
 public:
  TrainingJob(Communicator& comm, const JobRun& run, const JobHost& host, spdlog::logger* log);

  // Everything up to the first step. FailedPrecondition: spec, folder and data do not go together. After an error what
  // the folder held of a job is as it was.
  absl::Status Prepare();

  // Trains, after Prepare succeeded. False if it was asked to stop; Aborted: the job is another's now.
  absl::StatusOr<bool> Run();

 private:
  absl::Status FindEarlier();
  absl::Status OpenData();
  absl::Status OpenLive();
  absl::Status MakePlan();
  absl::Status AllocateNeighbours();
  JobTensors Tensors();
  absl::Status FillWeights();
  absl::Status OpenRecords();  // Rank 0 only.
  // Goes back to the checkpoint after `steps` steps, or to the initial weights, as LiveLoopOptions::load.
  absl::Status Load(int32_t steps);
  LiveJob DescribeLive() const;

  Communicator& comm_;
  const JobRun& run_;
  const JobHost& host_;
  const shardmax::v1::Train& train_;
  spdlog::logger* log_;
  const JobFolder folder_;
  EarlierRun earlier_;                           // Rank 0 only.
  std::optional<MetricsLog> metrics_;            // Rank 0 only.
  bool resumes_ = false;                         // From a checkpoint.
  std::optional<JobData> data_;                  // None of a live job.
  absl::StatusOr<std::string> initial_weights_;  // Resolved path; empty if they are drawn.
  TrainingPlan plan_;
  EngineChoice engine_;
  std::optional<NeighbourGraph> neighbours_;       // Of nearest sampling.
  std::unique_ptr<Communicator> between_devices_;  // Of the steps and checkpoints; null: comm_.
  int64_t first_step_ = 0;
};

}  // namespace shardmax
