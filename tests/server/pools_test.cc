// What a pool sees of the server, and what becomes of its job when things break.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/server_fixture.h"

namespace shardmax {
namespace {

using ::testing::HasSubstr;
using Kind = v1::ServerMessage;

class PoolsTest : public ServerFixture {
 protected:
  PoolsTest() { StartServer(); }

  // A job that runs on a new pool "p" of session "s1".
  std::string RunJob(const std::string& textproto = "") {
    const std::string id = Submit(Spec("a", textproto)).id();
    pool_ = NewPool("p", "s1");
    const auto assignment = pool_->AwaitAssignment();
    EXPECT_TRUE(assignment.has_value());
    EXPECT_EQ(assignment->job(), id);
    return id;
  }

  void LongGrace() {
    StopServer();
    options_.pool_grace = std::chrono::hours(1);
    StartServer();
  }

  std::unique_ptr<ScriptedPool> pool_;
};

TEST_F(PoolsTest, RunsOneJobAfterAnother) {
  auto pool = NewPool("p", "s1");
  const auto welcome = pool->Await(Kind::kWelcome);
  ASSERT_TRUE(welcome.has_value());
  EXPECT_EQ(welcome->welcome().heartbeat_interval_ms(), options_.heartbeat.count());
  for (const char* name : {"first", "second"}) {
    const std::string id = Submit(Spec(name)).id();
    const auto assignment = pool->AwaitAssignment();
    ASSERT_TRUE(assignment.has_value());
    EXPECT_EQ(assignment->job(), id);
    EXPECT_EQ(assignment->attempt(), 1);
    EXPECT_EQ(assignment->folder(), options_.state_dir + "/jobs/" + id);
    EXPECT_EQ(assignment->spec().train().dataset().features(), folder_.path("data/x.npy"));
    EXPECT_EQ(assignment->data_roots(0), folder_.path("data"));
    EXPECT_EQ(Pools().at(0).state(), v1::BUSY);
    EXPECT_EQ(Pools().at(0).job(), id);
    pool->SendProgress(id, 1, 3, 10);
    pool->SendCheckpoint(id, 1, 2);
    const v1::Job running = AwaitJob(id, [](const v1::Job& job) { return job.checkpoint_step() == 2; });
    EXPECT_EQ(running.state(), v1::RUNNING);
    EXPECT_EQ(running.progress().step(), 3);
    EXPECT_EQ(running.total_steps(), 10);
    EXPECT_EQ(running.pool(), "p");
    EXPECT_EQ(running.ranks(), 2);
    pool->SendEnded(id, 1, v1::JobEnded::OUTCOME_SUCCEEDED, "all done");
    const auto ack = pool->Await(Kind::kEndedAck);
    ASSERT_TRUE(ack.has_value());
    EXPECT_EQ(ack->ended_ack().job(), id);
    EXPECT_EQ(Get(id).state(), v1::SUCCEEDED);
    EXPECT_EQ(Get(id).reason(), "all done");
  }
  EXPECT_EQ(Pools().at(0).state(), v1::IDLE);
}

TEST_F(PoolsTest, AStopReachesThePoolAndItsAnswerTheJob) {
  const std::string id = RunJob();
  EXPECT_TRUE(Stop(id).stop_requested());
  const auto stop = pool_->Await(Kind::kStop);
  ASSERT_TRUE(stop.has_value());
  EXPECT_EQ(stop->stop().job(), id);
  EXPECT_EQ(stop->stop().attempt(), 1);
  pool_->SendEnded(id, 1, v1::JobEnded::OUTCOME_STOPPED, "after step 5");
  EXPECT_EQ(AwaitState(id, v1::STOPPED).reason(), "stopped on request: after step 5");
}

TEST_F(PoolsTest, ACheckpointIsAskedForWhileTheJobRunsOnly) {
  const std::string pending = Submit(Spec("a", "pool: 'nobody'")).id();
  v1::CheckpointNowRequest request;
  v1::CheckpointNowResponse response;
  const auto call = [&](const std::string& job) {
    grpc::ClientContext context;
    Prepare(context);
    request.set_job(job);
    return jobs_->CheckpointNow(&context, request, &response);
  };
  EXPECT_EQ(call(pending).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(call(pending).error_message(), HasSubstr("does not run: it is PENDING (waits for pool nobody)"));
  const std::string id = RunJob();
  EXPECT_TRUE(call(id).ok());
  const auto asked = pool_->Await(Kind::kCheckpoint);
  ASSERT_TRUE(asked.has_value());
  EXPECT_EQ(asked->checkpoint().job(), id);
}

TEST_F(PoolsTest, APoolThatComesBackInTimeGoesOn) {
  LongGrace();
  const std::string id = RunJob();
  pool_->Break();
  ASSERT_TRUE(Eventually([&] { return Pools().at(0).state() == v1::LOST; }));
  pool_ = NewPool("p", "s1", 2, id, 1);
  const auto welcome = pool_->Await(Kind::kWelcome);
  ASSERT_TRUE(welcome.has_value());
  EXPECT_TRUE(welcome->welcome().running_accepted());
  pool_->SendProgress(id, 1, 8, 10);
  AwaitJob(id, [](const v1::Job& job) { return job.progress().step() == 8; });
  EXPECT_EQ(Get(id).attempt(), 1);
  EXPECT_EQ(Get(id).restarts(), 0);
  pool_->SendEnded(id, 1, v1::JobEnded::OUTCOME_SUCCEEDED);
  AwaitState(id, v1::SUCCEEDED);
}

TEST_F(PoolsTest, AStopThatCameWhileThePoolWasAwayIsToldWhenItIsBack) {
  LongGrace();
  const std::string id = RunJob();
  pool_->Break();
  ASSERT_TRUE(Eventually([&] { return Pools().at(0).state() == v1::LOST; }));
  EXPECT_EQ(Stop(id).state(), v1::RUNNING);
  pool_ = NewPool("p", "s1", 2, id, 1);
  EXPECT_TRUE(pool_->Await(Kind::kStop).has_value());
}

TEST_F(PoolsTest, AfterTheGraceTheJobGoesToAnotherPoolAndTheOldAttemptIsAbandoned) {
  const std::string id = RunJob();
  pool_->SendCheckpoint(id, 1, 5);
  AwaitJob(id, [](const v1::Job& job) { return job.checkpoint_step() == 5; });
  pool_->Break();
  const v1::Job pending = AwaitState(id, v1::PENDING);
  EXPECT_EQ(pending.restarts(), 1);
  EXPECT_THAT(pending.reason(), HasSubstr("pool p was lost: nothing was heard of it for"));
  EXPECT_THAT(pending.reason(), HasSubstr("to start again from its newest valid checkpoint (restart 1 of 3)"));
  EXPECT_TRUE(Pools().empty());

  auto other = NewPool("q", "t1", 3);
  const auto assignment = other->AwaitAssignment();
  ASSERT_TRUE(assignment.has_value());
  EXPECT_EQ(assignment->attempt(), 2);
  EXPECT_EQ(Get(id).ranks(), 3);

  pool_ = NewPool("p", "s1", 2, id, 1);
  const auto welcome = pool_->Await(Kind::kWelcome);
  ASSERT_TRUE(welcome.has_value());
  EXPECT_FALSE(welcome->welcome().running_accepted());
  const auto abandon = pool_->Await(Kind::kAbandon);
  ASSERT_TRUE(abandon.has_value());
  EXPECT_EQ(abandon->abandon().attempt(), 1);
  // Until it says that it has, it gets nothing else; and what it says of the job counts no more.
  const std::string next = Submit(Spec("b")).id();
  EXPECT_TRUE(pool_->GetsNo(Kind::kAssignment));
  pool_->SendProgress(id, 1, 9, 10);
  pool_->SendEnded(id, 1, v1::JobEnded::OUTCOME_SUPERSEDED);
  const auto free = pool_->AwaitAssignment();
  ASSERT_TRUE(free.has_value());
  EXPECT_EQ(free->job(), next);
  EXPECT_EQ(Get(id).state(), v1::RUNNING);
  EXPECT_EQ(Get(id).attempt(), 2);
  EXPECT_FALSE(Get(id).has_progress());
}

TEST_F(PoolsTest, ALostPoolIsTakenBackWhileItsJobStillWaits) {
  const std::string id = RunJob("pool: 'p'");
  pool_->Break();
  EXPECT_EQ(AwaitState(id, v1::PENDING).restarts(), 1);
  pool_ = NewPool("p", "s1", 2, id, 1);
  const auto welcome = pool_->Await(Kind::kWelcome);
  ASSERT_TRUE(welcome.has_value());
  EXPECT_TRUE(welcome->welcome().running_accepted());
  const v1::Job job = Get(id);
  EXPECT_EQ(job.state(), v1::RUNNING);
  EXPECT_EQ(job.attempt(), 1);
  EXPECT_EQ(job.restarts(), 0);
  pool_->SendEnded(id, 1, v1::JobEnded::OUTCOME_SUCCEEDED);
  AwaitState(id, v1::SUCCEEDED);
}

TEST_F(PoolsTest, AnotherLaunchOfThePoolMeansThatTheOneBeforeIsGone) {
  LongGrace();
  const std::string id = RunJob();
  pool_->Break();
  ASSERT_TRUE(Eventually([&] { return Pools().at(0).state() == v1::LOST; }));
  pool_ = NewPool("p", "s2");
  const auto assignment = pool_->AwaitAssignment();
  ASSERT_TRUE(assignment.has_value());
  EXPECT_EQ(assignment->job(), id);
  EXPECT_EQ(assignment->attempt(), 2);
  EXPECT_EQ(Get(id).restarts(), 1);
}

TEST_F(PoolsTest, AnAssignmentThatNeverArrivedIsGivenAgainForNothing) {
  LongGrace();
  const std::string id = RunJob();
  pool_->Break();
  ASSERT_TRUE(Eventually([&] { return Pools().at(0).state() == v1::LOST; }));
  pool_ = NewPool("p", "s1");  // The same launch, and it runs nothing.
  const auto assignment = pool_->AwaitAssignment();
  ASSERT_TRUE(assignment.has_value());
  EXPECT_EQ(assignment->attempt(), 2);
  EXPECT_EQ(Get(id).restarts(), 0);
}

TEST_F(PoolsTest, ASecondLivePoolOfTheSameNameIsRefused) {
  const auto first = NewPool("p", "s1");
  ASSERT_TRUE(first->Await(Kind::kWelcome).has_value());
  auto second = NewPool("p", "s2", 4);
  const grpc::Status status = second->AwaitEnd();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_THAT(status.error_message(), HasSubstr("a pool named p is connected already (2 ranks, heard"));
  EXPECT_THAT(status.error_message(), HasSubstr("give this one another name with --pool"));
  EXPECT_TRUE(first->SendHeartbeat());
  EXPECT_EQ(Pools().size(), 1u);
}

TEST_F(PoolsTest, TheSameLaunchMayConnectAnewBeforeTheServerNoticesTheBreak) {
  const std::string id = RunJob();
  auto again = NewPool("p", "s1", 2, id, 1);
  const auto welcome = again->Await(Kind::kWelcome);
  ASSERT_TRUE(welcome.has_value());
  EXPECT_TRUE(welcome->welcome().running_accepted());
  EXPECT_EQ(pool_->AwaitEnd().error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(Pools().at(0).state(), v1::BUSY) << "the end of the old stream is not the end of the new";
}

TEST_F(PoolsTest, ASilentPoolIsLostAndItsNameFree) {
  StopServer();
  options_.heartbeat = std::chrono::milliseconds(50);
  StartServer();
  const std::string id = RunJob();
  const grpc::Status status = pool_->AwaitEnd();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("pool p was silent for"));
  EXPECT_EQ(AwaitState(id, v1::PENDING).restarts(), 1);
}

TEST_F(PoolsTest, APoolThatAbandonsWithoutAWordIsAskedAnew) {
  StopServer();
  options_.heartbeat = std::chrono::milliseconds(50);
  StartServer();
  auto pool = NewPool("p", "s1", 2, "nobodys-1", 3);
  ASSERT_TRUE(pool->Await(Kind::kAbandon).has_value());
  while (pool->SendHeartbeat()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const grpc::Status status = pool->AwaitEnd();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(status.error_message(), "connect again and say what runs");
}

TEST_F(PoolsTest, FailuresOfThePoolEndAtMaxRestarts) {
  const std::string id = RunJob("max_restarts: 1");
  pool_->SendEnded(id, 1, v1::JobEnded::OUTCOME_POOL_FAILED, "rank 1 is gone");
  const auto second = pool_->AwaitAssignment();
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->attempt(), 2);
  pool_->SendEnded(id, 2, v1::JobEnded::OUTCOME_POOL_FAILED, "rank 0 is gone");
  EXPECT_EQ(AwaitState(id, v1::FAILED).reason(), "gave up after 1 restart: pool p failed: rank 0 is gone");
  EXPECT_EQ(Metric("shardmax_job_restarts_total{cause=\"pool_failed\"}"), 1);
}

TEST_F(PoolsTest, AFaultOfTheJobIsFinal) {
  const std::string id = RunJob();
  pool_->SendEnded(id, 1, v1::JobEnded::OUTCOME_JOB_FAILED, "row 3 holds NaN");
  EXPECT_EQ(AwaitState(id, v1::FAILED).reason(), "row 3 holds NaN");
  EXPECT_EQ(Get(id).restarts(), 0);
}

TEST_F(PoolsTest, AnInterruptedPoolSaysGoodbyeAndItsJobGoesOnElsewhereForNothing) {
  const std::string id = RunJob("max_restarts: 0");
  pool_->SendEnded(id, 1, v1::JobEnded::OUTCOME_INTERRUPTED, "SIGTERM");
  // The pool is idle until its goodbye arrives: the job may come back to it, and leaves again with it.
  pool_->SendGoodbye("SIGTERM");
  EXPECT_TRUE(pool_->AwaitEnd().ok());
  EXPECT_EQ(AwaitState(id, v1::PENDING).restarts(), 0);
  EXPECT_TRUE(Pools().empty());
  auto other = NewPool("q", "t1");
  const auto assignment = other->AwaitAssignment();
  ASSERT_TRUE(assignment.has_value());
  EXPECT_EQ(assignment->job(), id);
}

TEST_F(PoolsTest, AServerThatStartsAgainFindsTheJobRunningAndItsProgress) {
  const std::string id = RunJob();
  pool_->SendProgress(id, 1, 4, 10);
  AwaitJob(id, [](const v1::Job& job) { return job.progress().step() == 4; });
  server_->Shutdown();
  EXPECT_EQ(pool_->AwaitEnd().error_code(), grpc::StatusCode::UNAVAILABLE);
  StopServer();
  options_.pool_grace = std::chrono::hours(1);
  StartServer();
  EXPECT_EQ(Get(id).state(), v1::RUNNING);
  EXPECT_EQ(Get(id).progress().step(), 4) << "progress is written at a shutdown";
  EXPECT_EQ(Pools().at(0).state(), v1::LOST);
  pool_ = NewPool("p", "s1", 2, id, 1);
  ASSERT_TRUE(pool_->Await(Kind::kWelcome)->welcome().running_accepted());
  pool_->SendEnded(id, 1, v1::JobEnded::OUTCOME_SUCCEEDED);
  AwaitState(id, v1::SUCCEEDED);
  EXPECT_EQ(Get(id).attempt(), 1);
}

TEST_F(PoolsTest, AfterAStartPoolsHaveTheGraceToComeBack) {
  const std::string id = RunJob();
  StopServer();
  StartServer();
  EXPECT_EQ(AwaitState(id, v1::PENDING).restarts(), 1);
}

TEST_F(PoolsTest, LogLinesArriveOnceAndAreAcknowledged) {
  const std::string id = RunJob();
  pool_->SendLog(id, 1, 1, "one");
  pool_->SendLog(id, 1, 2, std::string("two\x01") + std::string(9000, 'x'));
  pool_->SendLog(id, 1, 1, "one, again");
  for (const int number : {1, 2, 1}) {
    const auto ack = pool_->Await(Kind::kLogAck);
    ASSERT_TRUE(ack.has_value());
    EXPECT_EQ(ack->log_ack().number(), number);
  }
  std::vector<std::string> said;
  for (const v1::LogLine& line : Log(id)) {
    EXPECT_LE(line.text().size(), 4096u);
    if (line.source() == "p") said.push_back(line.text().substr(0, 8));
  }
  EXPECT_THAT(said, ::testing::ElementsAre("one", "two\\x01x"));
}

TEST_F(PoolsTest, NewsOfAJobThatIsUnknownIsAcknowledgedAndForgotten) {
  auto pool = NewPool("p", "s1");
  pool->SendLog("nobodys-1", 1, 1, "hello");
  EXPECT_TRUE(pool->Await(Kind::kLogAck).has_value());
  pool->SendEnded("nobodys-1", 1, v1::JobEnded::OUTCOME_SUCCEEDED);
  EXPECT_TRUE(pool->Await(Kind::kEndedAck).has_value());
  EXPECT_EQ(Pools().at(0).state(), v1::IDLE);
}

TEST_F(PoolsTest, AHelloThatCannotBeTrueIsRefused) {
  const auto refusal = [this](const std::string& name, int ranks) { return NewPool(name, "s", ranks)->AwaitEnd(); };
  EXPECT_EQ(refusal("../p", 1).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refusal("../p", 1).error_message(), HasSubstr("hello.pool is \"../p\""));
  EXPECT_THAT(refusal("", 1).error_message(), HasSubstr("hello.pool is \"\""));
  EXPECT_THAT(refusal("p", 0).error_message(), HasSubstr("hello.ranks is 0"));
  EXPECT_THAT(NewPool("p", "")->AwaitEnd().error_message(), HasSubstr("hello.session is \"\""));
}

TEST_F(PoolsTest, TheFirstMessageMustBeAHello) {
  grpc::ClientContext context;
  const auto stream = pools_->Connect(&context);
  v1::PoolMessage message;
  message.mutable_heartbeat();
  stream->Write(message);
  v1::ServerMessage answer;
  EXPECT_FALSE(stream->Read(&answer));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(status.error_message(), "the first message of a stream must be hello");
}

TEST_F(PoolsTest, TheTargetsFileFollowsThePools) {
  const std::string file = options_.state_dir + "/prometheus/targets.json";
  const auto has = [&](const std::string& text) { return TempFolder::ReadAll(file).find(text) != std::string::npos; };
  EXPECT_TRUE(Eventually([&] { return has(server_->metrics()); }));
  auto pool = NewPool("p", "s1");
  EXPECT_TRUE(Eventually([&] { return has("127.0.0.1:7711") && has("\"pool\": \"p\"") && has("\"rank\": \"1\""); }));
  pool->SendGoodbye("bye");
  EXPECT_TRUE(Eventually([&] { return !has("127.0.0.1:7711"); }));
}

}  // namespace
}  // namespace shardmax
