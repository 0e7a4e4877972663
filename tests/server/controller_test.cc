// What cannot be had from outside a server: a disk that is full, and time as the test wants it.
#include "server/controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/data/temp_folder.h"
#include "tests/server/job_records.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class RecordingLink : public PoolLink {
 public:
  void Send(const v1::ServerMessage& message) override { sent.push_back(message); }
  void Close(const absl::Status& status) override {
    if (!closed) closed = status;
  }

  std::vector<v1::ServerMessage> sent;
  std::optional<absl::Status> closed;
};

class CountingObserver : public ControllerObserver {
 public:
  void JobChanged(const v1::Job& job) override { states.push_back(job.state()); }
  void JobProgressed(const v1::Job& /*job*/) override { ++progressed; }
  void JobDeleted(const std::string& /*id*/) override {}
  void LinesAdded(const std::string& /*id*/) override {}
  void PoolsChanged() override {}
  void PoolNews(const std::string& /*news*/) override {}
  void Submitted() override { ++submitted; }
  void Assigned(double waited_s) override { waits.push_back(waited_s); }
  void Restarted(const std::string& cause) override { causes.push_back(cause); }

  std::vector<v1::JobState> states;
  std::vector<double> waits;
  std::vector<std::string> causes;
  int submitted = 0;
  int progressed = 0;
};

class ControllerTest : public ::testing::Test {
 protected:
  ControllerTest() {
    auto store = *JobStore::Open(folder_.path("shardmax.db"));
    database_ = &store->database();
    controller_ =
        *Controller::Start({.jobs_folder = "/jobs", .data_roots = {"/data"}}, std::move(store), observer_, now_);
  }

  void Pass(milliseconds time) {
    now_.steady += time;
    now_.unix_us += time.count() * 1000;
    controller_->Tick(now_);
    controller_->EndBatch(now_);
  }

  absl::StatusOr<v1::Job> Submit(const std::string& name) {
    auto job = controller_->Submit(NewJob(name), now_);
    absl::Status committed;
    controller_->AfterCommit([&committed](const absl::Status& status) { committed = status; });
    controller_->EndBatch(now_);
    if (!committed.ok()) return committed;
    return job;
  }

  std::shared_ptr<RecordingLink> Hello(const std::string& session) {
    auto link = std::make_shared<RecordingLink>();
    v1::PoolMessage message;
    message.mutable_hello()->set_pool("p");
    message.mutable_hello()->set_session(session);
    message.mutable_hello()->set_ranks(2);
    controller_->PoolSaid(link, message, now_);
    controller_->EndBatch(now_);
    return link;
  }

  v1::JobState StateOf(const std::string& job) { return controller_->Find(job)->job.state(); }

  TempFolder folder_;
  CountingObserver observer_;
  Moment now_ = {std::chrono::steady_clock::time_point(std::chrono::hours(1)), 1'000'000'000};
  Database* database_;
  std::unique_ptr<Controller> controller_;
};

TEST_F(ControllerTest, NothingIsToldBeforeItIsOnTheDisk) {
  const auto link = Hello("s1");
  controller_->Submit(NewJob("a"), now_).IgnoreError();
  EXPECT_EQ(observer_.submitted, 0);
  EXPECT_EQ(link->sent.size(), 1u) << "the welcome";
  controller_->EndBatch(now_);
  EXPECT_EQ(observer_.submitted, 1);
  ASSERT_EQ(link->sent.size(), 2u);
  EXPECT_EQ(link->sent[1].assignment().job(), "a-1");
  EXPECT_EQ(link->sent[1].assignment().data_roots(0), "/data");
}

TEST_F(ControllerTest, AFullDiskFailsTheRequestsOfTheBatchAndPoolsConnectAnew) {
  ASSERT_TRUE(Submit("a").ok());
  const auto link = Hello("s1");
  ASSERT_EQ(StateOf("a"), v1::RUNNING);
  ASSERT_TRUE(database_->Execute("PRAGMA max_page_count = 1").ok());
  absl::Status full;
  for (int i = 0; full.ok() && i < 1000; ++i) full = Submit("b").status();
  EXPECT_EQ(full.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(full), HasSubstr("could not write its database"));
  ASSERT_TRUE(link->closed.has_value());
  EXPECT_EQ(link->closed->code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(StateOf("a"), v1::RUNNING) << "its pool has the grace to come back";

  ASSERT_TRUE(database_->Execute("PRAGMA max_page_count = 1000000").ok());
  EXPECT_TRUE(Submit("c").ok());
  auto back = std::make_shared<RecordingLink>();
  v1::PoolMessage message;
  message.mutable_hello()->set_pool("p");
  message.mutable_hello()->set_session("s1");
  message.mutable_hello()->set_ranks(2);
  message.mutable_hello()->mutable_running()->set_job("a-1");
  message.mutable_hello()->mutable_running()->set_attempt(1);
  controller_->PoolSaid(back, message, now_);
  controller_->EndBatch(now_);
  ASSERT_FALSE(back->sent.empty());
  EXPECT_TRUE(back->sent[0].welcome().running_accepted());
}

TEST_F(ControllerTest, APoolIsSilentAfterThreeHeartbeatsAndLostAfterTheGrace) {
  ASSERT_TRUE(Submit("a").ok());
  const auto link = Hello("s1");
  Pass(milliseconds(6000));
  EXPECT_FALSE(link->closed.has_value());
  Pass(milliseconds(1));
  ASSERT_TRUE(link->closed.has_value());
  EXPECT_EQ(controller_->Pools().at(0).state(), v1::LOST);
  Pass(milliseconds(30'000));
  EXPECT_EQ(StateOf("a"), v1::RUNNING);
  Pass(milliseconds(1));
  EXPECT_EQ(StateOf("a"), v1::PENDING);
  EXPECT_THAT(observer_.causes, ::testing::ElementsAre("pool_lost"));
  Pass(milliseconds(5000));
  Hello("s2");
  EXPECT_EQ(StateOf("a"), v1::RUNNING);
  ASSERT_EQ(observer_.waits.size(), 2u);
  EXPECT_DOUBLE_EQ(observer_.waits[1], 5) << "since it became pending again";
}

TEST_F(ControllerTest, ANewLaunchTakesTheNameOfOneThatWasSilentForTwoHeartbeats) {
  const auto first = Hello("s1");
  Pass(milliseconds(4000));
  EXPECT_EQ(Hello("s2")->closed->code(), absl::StatusCode::kAlreadyExists);
  Pass(milliseconds(1));
  EXPECT_FALSE(Hello("s3")->closed.has_value());
  EXPECT_EQ(first->closed->code(), absl::StatusCode::kAborted);
}

TEST_F(ControllerTest, ProgressIsWrittenAtMostOnceASecond) {
  ASSERT_TRUE(Submit("a").ok());
  const auto link = Hello("s1");
  v1::PoolMessage message;
  message.mutable_progress()->set_job("a-1");
  message.mutable_progress()->set_attempt(1);
  message.mutable_progress()->mutable_metrics()->set_step(1);
  const auto stored_step = [this] {
    Query query(*database_, "SELECT progress FROM jobs WHERE sequence = 1");
    EXPECT_TRUE(query.Next());
    v1::StepMetrics progress;
    EXPECT_TRUE(progress.ParseFromString(query.Text(0)));
    return progress.step();
  };
  controller_->PoolSaid(link, message, now_);
  Pass(milliseconds(1));
  EXPECT_EQ(stored_step(), 1);
  message.mutable_progress()->mutable_metrics()->set_step(2);
  controller_->PoolSaid(link, message, now_);
  Pass(milliseconds(900));
  EXPECT_EQ(stored_step(), 1);
  EXPECT_EQ(controller_->Find("a")->job.progress().step(), 2);
  Pass(milliseconds(100));
  EXPECT_EQ(stored_step(), 2);
}

}  // namespace
}  // namespace shardmax
