// What a loop leaves behind when an engine fails, and how the next run goes on from there.
#include "worker/training_loop.h"

#include <functional>
#include <regex>

#include "tests/head/failing_engine.h"
#include "tests/worker/job_fixture.h"
#include "worker/base/status.h"
#include "worker/engine/make_engine.h"
#include "worker/head/random_weights.h"
#include "worker/job_setup.h"

namespace shardmax {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using Spoil = std::function<void(int rank, int64_t step, FailingEngine&)>;

// Calls `spoil` before each step, and writes down what it would tell.
class SpoilingRequests final : public JobRequests {
 public:
  SpoilingRequests(int rank, FailingEngine& engine, const Spoil& spoil) : rank_(rank), engine_(engine), spoil_(spoil) {}
  uint32_t Take() override {
    spoil_(rank_, ++step_, engine_);
    return 0;
  }

 private:
  int rank_;
  FailingEngine& engine_;
  const Spoil& spoil_;
  int64_t step_ = 0;
};

class Loop : public JobTest {
 protected:
  Loop() { WriteData("vx.npy", "vy.npy"); }

  // Trains on two ranks with an engine that `spoil` changes before step k, counted from 1; the status of each rank.
  std::vector<absl::Status> TrainWith(const std::string& train, const Spoil& spoil) {
    std::vector<absl::Status> statuses(2);
    const JobRun job = Run(train + " validation { features: 'vx.npy' labels: 'vy.npy' }");
    SpawnRanks(2, [&](Communicator& comm) -> absl::Status {
      SHARDMAX_ASSIGN_OR_RETURN(const JobData data, OpenJobData(job, true));
      SHARDMAX_ASSIGN_OR_RETURN(const TrainingPlan plan, MakeTrainingPlan(job.spec.train(), 3));
      PlannedRequests none;
      SHARDMAX_ASSIGN_OR_RETURN(const EngineChoice made, MakeJobEngine(comm, {.threads = 1, .requests = none}, nullptr,
                                                                       job.spec.train(), plan, ""));
      SHARDMAX_RETURN_IF_ERROR(DrawWeights(*made.engine, 1, 0.01));
      FailingEngine engine(*made.engine);
      SpoilingRequests requests(comm.rank(), engine, spoil);
      statuses[comm.rank()] = Train(comm, job, data, plan, engine, requests);
      return absl::OkStatus();
    });
    EXPECT_EQ(statuses[0], statuses[1]);
    return statuses;
  }

 private:
  static absl::Status Train(Communicator& comm, const JobRun& job, const JobData& data, const TrainingPlan& plan,
                            Engine& engine, JobRequests& requests) {
    const JobFolder folder(job.output_folder);
    std::shared_ptr<spdlog::logger> log;
    std::optional<MetricsLog> metrics;
    if (comm.rank() == 0) {
      SHARDMAX_RETURN_IF_ERROR(folder.Make());
      SHARDMAX_RETURN_IF_ERROR(folder.WriteSpec(job.spec));
      SHARDMAX_ASSIGN_OR_RETURN(log, folder.OpenLog({}));
      SHARDMAX_ASSIGN_OR_RETURN(MetricsLog opened, MetricsLog::Open(folder, 0));
      metrics.emplace(std::move(opened));
    }
    TrainingLoop loop({.comm = comm,
                       .engine = engine,
                       .train = job.spec.train(),
                       .plan = plan,
                       .checkpoints_folder = folder.checkpoints_folder(),
                       .metrics = metrics.has_value() ? &*metrics : nullptr,
                       .log = log.get(),
                       .requests = requests,
                       .observers = {}},
                      data.dataset, &*data.validation);
    return loop.Run(0).status();
  }
};

Spoil FailBackwardOnRank1At(int64_t failing_step) {
  return [failing_step](int rank, int64_t step, FailingEngine& engine) {
    if (rank == 1 && step == failing_step) engine.backward_status = absl::InternalError("burnt");
  };
}

TEST_F(Loop, EndsOnEveryRankWithTheCauseOfAFailedUpdateInTheNextStep) {
  const auto statuses = TrainWith("", FailBackwardOnRank1At(2));
  EXPECT_EQ(Message(statuses[0]), "step 3: rank 1: in the backward phase of the step before: burnt");
  EXPECT_THAT(CheckpointNames(), IsEmpty());
}

TEST_F(Loop, WritesNoCheckpointOfAFailedUpdate) {
  for (const char* train : {"checkpoint { every_steps: 2 }", "steps: 2"}) {
    const auto statuses = TrainWith(train, FailBackwardOnRank1At(2));
    EXPECT_EQ(Message(statuses[0]), "rank 1: in the backward phase of the step before: burnt");
    EXPECT_THAT(CheckpointNames(), IsEmpty());
    std::filesystem::remove_all(folder_.path("out"));
  }
}

TEST_F(Loop, DoesNotValidateAFailedUpdate) {
  const auto statuses = TrainWith("checkpoint { every_steps: 0 }", FailBackwardOnRank1At(3));
  EXPECT_EQ(Message(statuses[0]), "rank 1: in the backward phase of the step before: burnt");
}

TEST_F(Loop, KeepsTheCheckpointThatIsDueWhenTheValidationFailsAndResumesWithTheValidation) {
  const auto statuses = TrainWith("checkpoint { every_steps: 3 }", [](int rank, int64_t step, FailingEngine& engine) {
    if (rank == 1 && step == 3) engine.nearest_status = absl::ResourceExhaustedError("no flour");
  });
  EXPECT_EQ(Message(statuses[0]), "rank 1: no flour");
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000003"));

  const std::string train = "checkpoint { every_steps: 3 } validation { features: 'vx.npy' labels: 'vy.npy' }";
  JobRun job = Run(train, true);
  EXPECT_EQ(RunOn(2, job)[0].status, absl::OkStatus());
  const std::string resumed = TempFolder::ReadAll(folder_.path("out/metrics.jsonl"));
  job.resume = false;
  job.output_folder = folder_.path("whole");
  EXPECT_EQ(RunOn(2, job)[0].status, absl::OkStatus());
  const std::string whole = TempFolder::ReadAll(folder_.path("whole/metrics.jsonl"));
  // But for the speeds, which are not those of before.
  const auto without_speeds = [](std::string text) {
    static const std::regex speed("\"samples_per_second\":[^,]*");
    return std::regex_replace(text, speed, "");
  };
  EXPECT_EQ(without_speeds(resumed), without_speeds(whole));
  EXPECT_THAT(whole, HasSubstr("validation_top1"));
}

}  // namespace
}  // namespace shardmax
