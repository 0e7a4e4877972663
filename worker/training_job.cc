#include "worker/training_job.h"

#include <spdlog/logger.h>

#include <string>
#include <utility>

#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/live_loop.h"
#include "worker/training_loop.h"

namespace shardmax {

TrainingJob::TrainingJob(Communicator& comm, const JobRun& run, const JobHost& host, spdlog::logger* log)
    : comm_(comm), run_(run), host_(host), train_(run.spec.train()), log_(log), folder_(run.output_folder) {}

absl::Status TrainingJob::Prepare() {
  SHARDMAX_RETURN_IF_ERROR(FindEarlier());
  SHARDMAX_RETURN_IF_ERROR(OpenData());
  SHARDMAX_RETURN_IF_ERROR(MakePlan());
  SHARDMAX_ASSIGN_OR_RETURN(const DeviceBackend* device, AgreeOnDevice(comm_, host_));
  SHARDMAX_ASSIGN_OR_RETURN(engine_, MakeJobEngine(comm_, host_, device, train_, plan_, folder_.storage_folder()));
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm_, AllocateNeighbours()));
  if (device != nullptr && comm_.size() > 1) {
    SHARDMAX_ASSIGN_OR_RETURN(between_devices_, device->MakeComm(comm_));
  }
  if (log_ != nullptr) {
    const std::string source = train_.has_live() ? fmt::format("{} trainers", train_.live().trainers())
                                                 : fmt::format("{} rows", data_->dataset.rows());
    log_->info("{} classes x {}, {}, {} steps on {} ranks; {}", train_.num_classes(), train_.dim(), source,
               plan_.total_steps, comm_.size(), engine_.description);
  }
  SHARDMAX_RETURN_IF_ERROR(FillWeights());
  // Not before the weights are there: a folder that cannot be resumed keeps its spec and metrics.
  return AgreeOk(comm_, comm_.rank() == 0 ? OpenRecords() : absl::OkStatus());
}

absl::StatusOr<bool> TrainingJob::Run() {
  const LoopContext context = {.comm = between_devices_ != nullptr ? *between_devices_ : comm_,
                               .engine = *engine_.engine,
                               .train = train_,
                               .plan = plan_,
                               .checkpoints_folder = folder_.checkpoints_folder(),
                               .neighbours = neighbours_.has_value() ? &*neighbours_ : nullptr,
                               .metrics = metrics_.has_value() ? &*metrics_ : nullptr,
                               .log = log_,
                               .requests = host_.requests,
                               .observers = host_.observers};
  if (train_.has_live()) {
    LiveLoop loop(context, {.meeting_comm = comm_,
                            .desk = *host_.live,
                            .job = DescribeLive(),
                            .load = [this](int32_t steps) { return Load(steps); },
                            .last_answer_wait = host_.last_answer_wait});
    SHARDMAX_ASSIGN_OR_RETURN(const LoopEnd end, loop.Run(first_step_));
    return end == LoopEnd::kFinished;
  }
  TrainingLoop loop(context, data_->dataset, data_->validation.has_value() ? &*data_->validation : nullptr);
  SHARDMAX_ASSIGN_OR_RETURN(const LoopEnd end, loop.Run(first_step_));
  return end == LoopEnd::kFinished;
}

LiveJob TrainingJob::DescribeLive() const {
  return {.id = run_.id.empty() ? run_.spec.name() : run_.id,
          .name = run_.spec.name(),
          .attempt = run_.attempt,
          .shape = {.num_classes = train_.num_classes(), .dim = train_.dim(), .max_rows = train_.batch_size()},
          .trainers = train_.live().trainers(),
          .total_steps = static_cast<int32_t>(plan_.total_steps),
          .rank = comm_.rank(),
          .ranks = comm_.size()};
}

absl::Status TrainingJob::Load(int32_t steps) {
  Engine& engine = *engine_.engine;
  if (steps > 0) return RestoreStep(comm_, Tensors(), train_, plan_, folder_.checkpoints_folder(), steps);
  const absl::Status there = AgreeOk(comm_, initial_weights_.status());
  SHARDMAX_RETURN_IF_ERROR(comm_.Barrier());  // Tells the files of a rank from a lost one, whose error comes again.
  if (!there.ok()) return absl::NotFoundError("the initial weights cannot be loaded: " + Message(there));
  if (neighbours_.has_value()) neighbours_->SetBuilt(false);
  absl::Status filled = InitialiseWeights(engine, train_, *initial_weights_);
  if (filled.ok()) filled = ClearOptimizer(engine);
  filled = AgreeOk(comm_, filled);
  // Half of them may be in the engine.
  return absl::IsNotFound(filled) ? absl::DataLossError(Message(filled)) : filled;
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

absl::Status TrainingJob::OpenLive() {
  if (host_.live == nullptr) return absl::FailedPreconditionError("train.live: this worker serves no trainers");
  initial_weights_ = FindInitialWeights(run_);
  // Where a checkpoint has the weights, the file need not be there any more, unless the trainers go back to it.
  return AgreeOk(comm_, resumes_ ? absl::OkStatus() : initial_weights_.status());
}

absl::Status TrainingJob::OpenData() {
  if (train_.has_live()) return OpenLive();
  auto data = OpenJobData(run_, !resumes_);
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm_, data.status()));
  data_.emplace(*std::move(data));
  initial_weights_ = data_->initial_weights;
  SHARDMAX_RETURN_IF_ERROR(AgreeOnData(comm_, data_->dataset));
  if (!data_->validation.has_value()) return absl::OkStatus();
  SHARDMAX_RETURN_IF_ERROR(AgreeOnData(comm_, *data_->validation));
  // Else they would be found when the first epoch ends. Those of the dataset are when their batch is read.
  const Range mine = BalancedPart(data_->validation->rows(), comm_.rank(), comm_.size());
  return AgreeOk(comm_, data_->validation->Check(mine));
}

absl::Status TrainingJob::MakePlan() {
  const int64_t steps_per_epoch = train_.has_live() ? 1
                                                    : BatchPlan(data_->dataset.rows(), train_.batch_size(),
                                                                train_.dataset().shuffle(), train_.init().seed())
                                                          .steps_per_epoch();
  SHARDMAX_ASSIGN_OR_RETURN(plan_, MakeTrainingPlan(train_, steps_per_epoch));
  SHARDMAX_RETURN_IF_ERROR(CheckFirstGraph(plan_));
  return BroadcastStatus(comm_, CheckLength(folder_, earlier_, train_, plan_.total_steps, steps_per_epoch), 0);
}

JobTensors TrainingJob::Tensors() {
  return {*engine_.engine, neighbours_.has_value() ? &*neighbours_ : nullptr};
}

absl::Status TrainingJob::AllocateNeighbours() {
  if (!plan_.nearest.has_value()) return absl::OkStatus();
  auto graph =
      NeighbourGraph::Allocate(engine_.engine->options().shard, train_.num_classes(), plan_.nearest->neighbours);
  SHARDMAX_RETURN_IF_ERROR(Annotate(graph.status(), "the graph of nearest classes"));
  neighbours_.emplace(*std::move(graph));
  return absl::OkStatus();
}

absl::Status TrainingJob::FillWeights() {
  if (!resumes_) return AgreeOk(comm_, InitialiseWeights(*engine_.engine, train_, *initial_weights_));
  SHARDMAX_ASSIGN_OR_RETURN(first_step_,
                            RestoreNewest(comm_, Tensors(), train_, plan_, folder_.checkpoints_folder(), log_));
  return absl::OkStatus();
}

absl::Status TrainingJob::OpenRecords() {
  SHARDMAX_RETURN_IF_ERROR(folder_.WriteSpec(run_.spec));
  SHARDMAX_ASSIGN_OR_RETURN(MetricsLog metrics, MetricsLog::Open(folder_, first_step_));
  metrics_.emplace(std::move(metrics));
  return absl::OkStatus();
}

}  // namespace shardmax
