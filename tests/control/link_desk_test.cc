#include "worker/control/link_desk.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "worker/job_events.h"

namespace shardmax {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

v1::ServerMessage Assignment(const std::string& job, int attempt) {
  v1::ServerMessage message;
  message.mutable_assignment()->set_job(job);
  message.mutable_assignment()->set_attempt(attempt);
  return message;
}

template <typename Request>
void Fill(Request& request, const std::string& job, int attempt) {
  request.set_job(job);
  request.set_attempt(attempt);
}

class LinkDeskTest : public ::testing::Test {
 protected:
  void TakeJob() {
    desk_.Handle(Assignment("job-1", 2));
    ASSERT_TRUE(desk_.AwaitAssignment(milliseconds(0)).has_value());
  }

  void Stop(const std::string& job, int attempt) {
    v1::ServerMessage message;
    Fill(*message.mutable_stop(), job, attempt);
    desk_.Handle(message);
  }

  void Abandon(const std::string& job, int attempt) {
    v1::ServerMessage message;
    Fill(*message.mutable_abandon(), job, attempt);
    desk_.Handle(message);
  }

  LinkDesk desk_;
};

TEST_F(LinkDeskTest, AnAssignmentWakesThePool) {
  EXPECT_FALSE(desk_.AwaitAssignment(milliseconds(1)).has_value());
  std::thread server([&] { desk_.Handle(Assignment("job-1", 1)); });
  const auto start = LinkDesk::Clock::now();
  const auto assignment = desk_.AwaitAssignment(seconds(60));
  server.join();
  ASSERT_TRUE(assignment.has_value());
  EXPECT_EQ(assignment->job(), "job-1");
  EXPECT_LT(LinkDesk::Clock::now() - start, seconds(30));
}

TEST_F(LinkDeskTest, AJobCountsAsRunningFromItsAssignmentOn) {
  desk_.Handle(Assignment("job-1", 2));
  const auto running = desk_.Rewind();
  ASSERT_TRUE(running.has_value());
  EXPECT_EQ(running->job(), "job-1");
  EXPECT_EQ(running->attempt(), 2);
}

TEST_F(LinkDeskTest, ARepeatedAssignmentIsOne) {
  TakeJob();
  desk_.Handle(Assignment("job-1", 2));
  EXPECT_FALSE(desk_.AwaitAssignment(milliseconds(0)).has_value());
}

TEST_F(LinkDeskTest, ARequestIsTakenOnce) {
  TakeJob();
  Stop("job-1", 2);
  v1::ServerMessage message;
  Fill(*message.mutable_checkpoint(), "job-1", 2);
  desk_.Handle(message);
  EXPECT_EQ(desk_.TakeRequests(), kRequestStop | kRequestCheckpoint);
  EXPECT_EQ(desk_.TakeRequests(), 0U);
  EXPECT_TRUE(desk_.stop_requested());
}

TEST_F(LinkDeskTest, RequestsForOtherAttemptsAreIgnored) {
  TakeJob();
  Stop("job-1", 1);
  Stop("job-2", 2);
  Abandon("job-1", 1);
  EXPECT_EQ(desk_.TakeRequests(), 0U);
  EXPECT_FALSE(desk_.stop_requested());
  EXPECT_FALSE(desk_.abandoned());
}

TEST_F(LinkDeskTest, AnAbandonedJobStaysAbandoned) {
  TakeJob();
  Abandon("job-1", 2);
  EXPECT_EQ(desk_.TakeRequests(), kRequestAbandon);
  EXPECT_EQ(desk_.TakeRequests(), kRequestAbandon);
  EXPECT_TRUE(desk_.abandoned());
}

TEST_F(LinkDeskTest, AJobThatHasEndedStillSaysSoWhenItIsAbandoned) {
  TakeJob();
  desk_.End(v1::JobEnded::OUTCOME_SUCCEEDED, "");
  Abandon("job-1", 2);
  EXPECT_FALSE(desk_.abandoned());
  EXPECT_FALSE(desk_.AwaitEndAcknowledged(milliseconds(0)));
  const std::atomic<bool> never = false;
  EXPECT_TRUE(desk_.AwaitMessage(LinkDesk::Clock::now(), never)->has_ended());
}

TEST_F(LinkDeskTest, TheNextJobInheritsNoRequest) {
  TakeJob();
  Stop("job-1", 2);
  desk_.End(v1::JobEnded::OUTCOME_STOPPED, "");
  v1::ServerMessage ack;
  Fill(*ack.mutable_ended_ack(), "job-1", 2);
  desk_.Handle(ack);
  desk_.Handle(Assignment("job-2", 1));
  ASSERT_TRUE(desk_.AwaitAssignment(milliseconds(0)).has_value());
  EXPECT_EQ(desk_.TakeRequests(), 0U);
  EXPECT_FALSE(desk_.stop_requested());
}

TEST_F(LinkDeskTest, AFailureWakesThePool) {
  std::thread link([&] { desk_.Fail(absl::UnauthenticatedError("no token")); });
  EXPECT_FALSE(desk_.AwaitAssignment(seconds(60)).has_value());
  link.join();
  EXPECT_TRUE(absl::IsUnauthenticated(desk_.failure()));
}

TEST_F(LinkDeskTest, ProgressThatIsNotDueWakesTheSenderWhenItIs) {
  TakeJob();
  desk_.SetTotalSteps(10);
  const std::atomic<bool> never = false;
  const auto soon = [] { return LinkDesk::Clock::now() + seconds(60); };
  ASSERT_TRUE(desk_.AwaitMessage(soon(), never)->has_progress());
  std::thread trainer([&] {
    v1::StepMetrics metrics;
    metrics.set_step(1);
    desk_.SetProgress(metrics);
  });
  const auto message = desk_.AwaitMessage(soon(), never);
  trainer.join();
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(message->progress().metrics().step(), 1);
}

}  // namespace
}  // namespace shardmax
