// Jobs that come from no file, several in one process, with requests and observers.
#include "tests/worker/job_fixture.h"

namespace shardmax {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using JobRunner = JobTest;

TEST_F(JobRunner, TellsEveryRankOfStartStepsAndCheckpoints) {
  const auto ends = RunOn(2, Run("checkpoint { every_steps: 4 } log_every_steps: 100"));
  EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
  for (const Recorder& recorder : recorders_) {
    EXPECT_EQ(recorder.first_step, 0);
    EXPECT_EQ(recorder.total_steps, 6);
    ASSERT_EQ(recorder.steps.size(), 6U) << "thinning the log does not thin the events";
    EXPECT_EQ(recorder.steps[4].step(), 5);
    EXPECT_EQ(recorder.steps[4].epoch(), 1);
    EXPECT_GT(recorder.steps[4].loss(), 0);
    EXPECT_GT(recorder.steps[4].samples_per_second(), 0);
    EXPECT_THAT(recorder.checkpoints, ElementsAre(4, 6));
    EXPECT_EQ(recorder.checkpoint_bytes, 6 * 4 * 4);
  }
}

TEST_F(JobRunner, RunsOneJobAfterAnotherInAProcess) {
  SpawnRanks(2, [&](Communicator& comm) {
    for (const char* name : {"first", "second"}) {
      JobRun job = Run();
      job.output_folder = folder_.path(name);
      PlannedRequests requests;
      const JobEnd end = RunJob(comm, job, {.threads = 1, .requests = requests});
      EXPECT_EQ(end.exit_code, kExitSucceeded) << end.status;
    }
  });
  EXPECT_EQ(TempFolder::ReadAll(folder_.path("first/job.json")), TempFolder::ReadAll(folder_.path("second/job.json")));
  EXPECT_THAT(TempFolder::ReadAll(folder_.path("second/log.txt")), HasSubstr("succeeded"));
}

TEST_F(JobRunner, WritesACheckpointWhenAnyRankAsksAndGoesOn) {
  const auto ends = RunOn(2, Run(), {PlannedRequests(), PlannedRequests({0, kRequestCheckpoint})});
  EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000002", "step-00000006"));
}

TEST_F(JobRunner, StopsWithACheckpointWhenAnyRankAsks) {
  const auto ends = RunOn(2, Run(), {PlannedRequests(), PlannedRequests({0, 0, kRequestStop})});
  EXPECT_EQ(ends[0].exit_code, kExitStopped) << ends[0].status;
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000003"));
  EXPECT_THAT(Log(), HasSubstr("stopped on request"));

  RunOn(2, Run("", true));
  EXPECT_EQ(recorders_[1].first_step, 3);
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000003", "step-00000006"));
}

}  // namespace
}  // namespace shardmax
