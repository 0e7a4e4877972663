#include "server/job_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/moment.h"
#include "tests/server/job_records.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kLater = 9'000'000;

JobRecord RunningJob(const std::string& textproto = "") {
  JobRecord record = PendingJob("a", textproto);
  Assign(record, {"p", "s1", 2}, 2'000'000);
  return record;
}

TEST(JobStateTest, AQueuedJobSaysWhatItWaitsFor) {
  EXPECT_EQ(PendingJob("a").job.reason(), "waits for a pool");
  EXPECT_EQ(PendingJob("a", "pool: 'big'").job.reason(), "waits for pool big");
  EXPECT_EQ(PendingJob("a", "min_ranks: 4").job.reason(), "waits for a pool of at least 4 ranks");
  EXPECT_EQ(PendingJob("a", "max_ranks: 8").job.reason(), "waits for a pool of at most 8 ranks");
  EXPECT_EQ(PendingJob("a", "min_ranks: 4 max_ranks: 8").job.reason(), "waits for a pool of 4 to 8 ranks");
  EXPECT_EQ(PendingJob("a").job.state(), v1::PENDING);
}

TEST(JobStateTest, AnAssignedJobRunsInTheNextAttempt) {
  const JobRecord record = RunningJob();
  EXPECT_EQ(record.job.state(), v1::RUNNING);
  EXPECT_EQ(record.job.attempt(), 1);
  EXPECT_EQ(record.job.pool(), "p");
  EXPECT_EQ(record.job.ranks(), 2);
  EXPECT_EQ(record.session, "s1");
  EXPECT_EQ(record.job.reason(), "runs on pool p (2 ranks), attempt 1");
  EXPECT_EQ(ToUnixMicros(record.job.started()), 2'000'000);
}

TEST(JobStateTest, EveryOutcomeLeadsToItsState) {
  const auto state_after = [](AttemptEnd end) {
    JobRecord record = RunningJob();
    EndAttempt(record, end, "why", kLater);
    return record.job.state();
  };
  EXPECT_EQ(state_after(AttemptEnd::kSucceeded), v1::SUCCEEDED);
  EXPECT_EQ(state_after(AttemptEnd::kStopped), v1::STOPPED);
  EXPECT_EQ(state_after(AttemptEnd::kJobFailed), v1::FAILED);
  EXPECT_EQ(state_after(AttemptEnd::kPoolFailed), v1::PENDING);
  EXPECT_EQ(state_after(AttemptEnd::kPoolLost), v1::PENDING);
  EXPECT_EQ(state_after(AttemptEnd::kPoolGone), v1::PENDING);
  EXPECT_EQ(state_after(AttemptEnd::kInterrupted), v1::PENDING);
  EXPECT_EQ(state_after(AttemptEnd::kNotDelivered), v1::PENDING);
}

TEST(JobStateTest, AFailureOfThePoolCostsARestartAndSaysFromWhereItGoesOn) {
  JobRecord record = RunningJob();
  EndAttempt(record, AttemptEnd::kPoolFailed, "rank 1 is lost", kLater);
  EXPECT_EQ(record.job.restarts(), 1);
  EXPECT_EQ(record.job.reason(),
            "pool p failed: rank 1 is lost; waits for a pool to start again from the beginning (restart 1 of 2)");
  EXPECT_EQ(record.pending_since_us, kLater);
  EXPECT_FALSE(record.job.has_finished());

  record = RunningJob();
  record.job.set_checkpoint_step(100);
  EndAttempt(record, AttemptEnd::kPoolLost, "nothing was heard of it", kLater);
  EXPECT_THAT(record.job.reason(), HasSubstr("pool p was lost: nothing was heard of it"));
  EXPECT_THAT(record.job.reason(), HasSubstr("from its newest valid checkpoint"));
}

TEST(JobStateTest, AJobGivesUpAfterItsRestarts) {
  JobRecord record = RunningJob();
  for (int restart = 1; restart <= 2; ++restart) {
    EndAttempt(record, AttemptEnd::kPoolFailed, "x", kLater);
    ASSERT_EQ(record.job.state(), v1::PENDING);
    Assign(record, {"p", "s1", 2}, kLater);
  }
  EXPECT_EQ(record.job.attempt(), 3);
  EndAttempt(record, AttemptEnd::kPoolFailed, "the disk is full", kLater);
  EXPECT_EQ(record.job.state(), v1::FAILED);
  EXPECT_EQ(record.job.restarts(), 2);
  EXPECT_EQ(record.job.reason(), "gave up after 2 restarts: pool p failed: the disk is full");
  EXPECT_EQ(ToUnixMicros(record.job.finished()), kLater);
}

TEST(JobStateTest, LeavingInOrderAndUndeliveredAssignmentsCostNoRestart) {
  JobRecord record = RunningJob("max_restarts: 0");
  EndAttempt(record, AttemptEnd::kInterrupted, "SIGTERM", kLater);
  EXPECT_EQ(record.job.state(), v1::PENDING);
  Assign(record, {"p", "s1", 2}, kLater);
  EndAttempt(record, AttemptEnd::kNotDelivered, "", kLater);
  EXPECT_EQ(record.job.state(), v1::PENDING);
  EXPECT_EQ(record.job.restarts(), 0);
}

TEST(JobStateTest, AJobThatWasToStopIsStoppedByAnyEndButItsOwn) {
  for (const AttemptEnd end : {AttemptEnd::kPoolFailed, AttemptEnd::kPoolLost, AttemptEnd::kPoolGone,
                               AttemptEnd::kInterrupted, AttemptEnd::kNotDelivered, AttemptEnd::kStopped}) {
    JobRecord record = RunningJob();
    ASSERT_TRUE(RequestStop(record, "ann", kLater).ok());
    EXPECT_EQ(record.job.state(), v1::RUNNING);
    EXPECT_TRUE(record.job.stop_requested());
    EXPECT_THAT(record.job.reason(), HasSubstr("stops after its current step, on request of ann"));
    EndAttempt(record, end, "why", kLater);
    EXPECT_EQ(record.job.state(), v1::STOPPED) << record.job.reason();
    EXPECT_THAT(record.job.reason(), HasSubstr("stopped on request"));
  }
  JobRecord record = RunningJob();
  ASSERT_TRUE(RequestStop(record, "", kLater).ok());
  EndAttempt(record, AttemptEnd::kSucceeded, "", kLater);
  EXPECT_EQ(record.job.state(), v1::SUCCEEDED);
}

TEST(JobStateTest, StoppingIsAtOnceForPendingJobsAndAnErrorForFinalOnes) {
  JobRecord record = PendingJob("a");
  ASSERT_TRUE(RequestStop(record, "", kLater).ok());
  EXPECT_EQ(record.job.state(), v1::STOPPED);
  EXPECT_THAT(record.job.reason(), HasSubstr("it never ran"));
  EXPECT_TRUE(RequestStop(record, "", kLater).ok());

  record = RunningJob();
  EndAttempt(record, AttemptEnd::kJobFailed, "NaN in row 3", kLater);
  const absl::Status status = RequestStop(record, "", kLater);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Message(status), "job a-1 cannot be stopped: it is FAILED already (NaN in row 3)");
}

TEST(JobStateTest, OnlyTheLaunchThatWasLostMayGoOnWithItsAttempt) {
  JobRecord record = RunningJob();
  EXPECT_FALSE(MayReadopt(record, {"p", "s1", 2}, 1)) << "it runs";
  EndAttempt(record, AttemptEnd::kPoolLost, "", kLater);
  EXPECT_TRUE(MayReadopt(record, {"p", "s1", 2}, 1));
  EXPECT_FALSE(MayReadopt(record, {"p", "s2", 2}, 1)) << "another launch";
  EXPECT_FALSE(MayReadopt(record, {"q", "s1", 2}, 1)) << "another pool";
  EXPECT_FALSE(MayReadopt(record, {"p", "s1", 2}, 0)) << "an older attempt";
  Readopt(record, {"p", "s1", 2});
  EXPECT_EQ(record.job.state(), v1::RUNNING);
  EXPECT_EQ(record.job.attempt(), 1);
  EXPECT_EQ(record.job.restarts(), 0) << "the restart did not happen";

  record = RunningJob();
  EndAttempt(record, AttemptEnd::kPoolGone, "", kLater);
  EXPECT_FALSE(MayReadopt(record, {"p", "s1", 2}, 1)) << "the launch is known to have ended";
}

}  // namespace
}  // namespace shardmax
