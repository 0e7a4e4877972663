#include "worker/control/control_link.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/ostream_sink.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/control/scripted_server.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using Heard = ScriptedServer::Heard;

class ControlLinkTest : public ::testing::Test {
 protected:
  ControlLinkTest() {
    options_.channel.server = server_.address();
    options_.hello.set_pool("a");
    options_.hello.set_session("session");
    options_.hello.set_ranks(2);
    options_.first_wait = milliseconds(20);
    options_.longest_wait = milliseconds(200);
  }

  void Connect() {
    link_ = std::make_unique<ControlLink>(options_, desk_, std::make_shared<spdlog::logger>("pool", log_sink_));
  }

  // Connects, and takes a job.
  void ConnectAndTakeJob() {
    Connect();
    ASSERT_TRUE(server_.Await([](const Heard& heard) { return heard.message.has_hello(); }));
    v1::ServerMessage message;
    message.mutable_assignment()->set_job("job-1");
    message.mutable_assignment()->set_attempt(1);
    ASSERT_TRUE(server_.Say(message));
    ASSERT_TRUE(desk_.AwaitAssignment(seconds(60)).has_value());
    desk_.SetTotalSteps(100);
  }

  void Progress(int step) {
    v1::StepMetrics metrics;
    metrics.set_step(step);
    desk_.SetProgress(metrics);
  }

  static auto HeardStep(int step, int connection = 0) {
    return [=](const Heard& heard) {
      return heard.message.has_progress() && heard.message.progress().metrics().step() == step &&
             (connection == 0 || heard.connection == connection);
    };
  }

  void Log(const std::string& text) { desk_.AddLog("info", text, std::chrono::system_clock::now()); }

  ScriptedServer server_;
  LinkOptions options_;
  LinkDesk desk_;
  std::ostringstream log_;  // Read it when the link is gone.
  std::shared_ptr<spdlog::sinks::ostream_sink_mt> log_sink_ = std::make_shared<spdlog::sinks::ostream_sink_mt>(log_);
  std::unique_ptr<ControlLink> link_;
};

TEST_F(ControlLinkTest, SaysHelloFirst) {
  options_.hello.set_backend("cpu");
  options_.hello.set_version("1.2.3");
  v1::RankEndpoint& endpoint = *options_.hello.add_endpoints();
  endpoint.set_host("node-1");
  endpoint.set_metrics_port(7710);
  Connect();
  ASSERT_TRUE(server_.Await([](const Heard& heard) { return heard.message.has_hello(); }));
  const v1::PoolMessage first = server_.heard().front().message;
  ASSERT_TRUE(first.has_hello());
  EXPECT_EQ(first.hello().SerializeAsString(), options_.hello.SerializeAsString());
  EXPECT_FALSE(first.hello().has_running());
}

TEST_F(ControlLinkTest, BringsItsToken) {
  const std::string path = ::testing::TempDir() + "/control_link_token";
  std::FILE* file = std::fopen(path.c_str(), "w");
  ASSERT_NE(file, nullptr);
  std::fputs("smx_secret\n", file);
  std::fclose(file);
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  options_.token_file = path;
  Connect();
  EXPECT_TRUE(server_.Await([](const Heard& heard) { return heard.authorization == "Bearer smx_secret"; }));
}

TEST_F(ControlLinkTest, HeartbeatsComeWithoutHelpOfTheTrainingThread) {
  server_.SetHeartbeat(milliseconds(50));
  Connect();
  const auto enough = [&] {
    int count = 0;
    for (const Heard& heard : server_.heard()) count += heard.message.has_heartbeat() ? 1 : 0;
    return count >= 3;
  };
  const auto deadline = std::chrono::steady_clock::now() + seconds(60);
  while (!enough() && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(milliseconds(10));
  EXPECT_TRUE(enough());
}

TEST_F(ControlLinkTest, ConnectsToAServerThatComesLater) {
  server_.Stop();
  Connect();
  std::this_thread::sleep_for(milliseconds(300));  // Long enough for several tries; the test does not depend on it.
  server_.Start();
  EXPECT_TRUE(server_.Await([](const Heard& heard) { return heard.message.has_hello(); }));
  EXPECT_TRUE(desk_.failure().ok());
}

TEST_F(ControlLinkTest, ARestartedServerFindsTheJobRunningAndItsProgressComplete) {
  ConnectAndTakeJob();
  server_.SetAcknowledges(false);
  Log("before");
  Progress(5);
  ASSERT_TRUE(server_.Await(HeardStep(5)));
  server_.Stop();
  Log("while it is away");
  Progress(6);
  Progress(7);
  server_.Start();
  ASSERT_TRUE(server_.Await(HeardStep(7, 2)));
  std::vector<std::string> lines;
  for (const Heard& heard : server_.heard()) {
    if (heard.connection < 2) continue;
    if (heard.message.has_hello()) {
      EXPECT_EQ(heard.message.hello().running().job(), "job-1");
      EXPECT_EQ(heard.message.hello().running().attempt(), 1);
      EXPECT_EQ(heard.message.hello().running().step(), 7);
    }
    if (heard.message.has_log()) lines.push_back(heard.message.log().text());
    EXPECT_FALSE(HeardStep(6)(heard));
  }
  EXPECT_THAT(lines, ::testing::ElementsAre("before", "while it is away"));
}

TEST_F(ControlLinkTest, AcknowledgedLinesAreNotRepeated) {
  ConnectAndTakeJob();
  Log("once");
  ASSERT_TRUE(server_.Await([](const Heard& heard) { return heard.message.has_log(); }));
  // The acknowledgement is on its way before anything else that the server says.
  v1::ServerMessage stop;
  stop.mutable_stop()->set_job("job-1");
  stop.mutable_stop()->set_attempt(1);
  ASSERT_TRUE(server_.Say(stop));
  while (desk_.TakeRequests() == 0) std::this_thread::sleep_for(milliseconds(1));
  server_.Stop();
  server_.Start();
  Progress(9);
  ASSERT_TRUE(server_.Await(HeardStep(9, 2)));
  for (const Heard& heard : server_.heard()) EXPECT_FALSE(heard.connection > 1 && heard.message.has_log());
}

TEST_F(ControlLinkTest, TheEndIsRepeatedUntilItIsAcknowledged) {
  ConnectAndTakeJob();
  server_.SetAcknowledges(false);
  desk_.End(v1::JobEnded::OUTCOME_JOB_FAILED, "no such file");
  ASSERT_TRUE(server_.Await([](const Heard& heard) { return heard.message.has_ended(); }));
  EXPECT_FALSE(desk_.AwaitEndAcknowledged(milliseconds(0)));
  server_.Stop();
  server_.SetAcknowledges(true);
  server_.Start();
  EXPECT_TRUE(desk_.AwaitEndAcknowledged(seconds(60)));
  EXPECT_TRUE(server_.Await([](const Heard& heard) { return heard.connection == 2 && heard.message.has_ended(); }));
}

TEST_F(ControlLinkTest, ARefusedPoolGivesUp) {
  for (const auto& [code, status_code] : std::vector<std::pair<grpc::StatusCode, absl::StatusCode>>{
           {grpc::StatusCode::UNAUTHENTICATED, absl::StatusCode::kUnauthenticated},
           {grpc::StatusCode::PERMISSION_DENIED, absl::StatusCode::kPermissionDenied},
           {grpc::StatusCode::ALREADY_EXISTS, absl::StatusCode::kAlreadyExists}}) {
    server_.RefuseWith({code, "because"});
    LinkDesk desk;
    const ControlLink link(options_, desk, std::make_shared<spdlog::logger>("pool", log_sink_));
    EXPECT_FALSE(desk.AwaitAssignment(seconds(60)).has_value());
    EXPECT_EQ(desk.failure().code(), status_code);
    EXPECT_THAT(Message(desk.failure()), HasSubstr("refuses the pool \"a\": because"));
  }
}

TEST_F(ControlLinkTest, AMissingCertificateGivesUp) {
  options_.channel.tls_ca = "/nonexistent/ca.pem";
  Connect();
  EXPECT_FALSE(desk_.AwaitAssignment(seconds(60)).has_value());
  EXPECT_THAT(Message(desk_.failure()), HasSubstr("--tls_ca: /nonexistent/ca.pem"));
}

TEST_F(ControlLinkTest, APoolThatWasWelcomeOnceKeepsTryingWhenItIsRefused) {
  Connect();
  ASSERT_TRUE(server_.Await([](const Heard& heard) { return heard.message.has_hello(); }));
  server_.Stop();
  server_.RefuseWith({grpc::StatusCode::UNAUTHENTICATED, "token expired"});
  server_.Start();
  ASSERT_TRUE(server_.Await([](const Heard& heard) { return heard.connection == 3; }));
  server_.RefuseWith(grpc::Status::OK);
  v1::ServerMessage assignment;
  assignment.mutable_assignment()->set_job("job-1");
  const auto deadline = std::chrono::steady_clock::now() + seconds(60);
  while (!desk_.AwaitAssignment(milliseconds(5)).has_value()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    server_.Say(assignment);
  }
  EXPECT_TRUE(desk_.failure().ok());
  link_.reset();
  EXPECT_THAT(log_.str(), HasSubstr("token expired"));
}

TEST_F(ControlLinkTest, LeavesWithEverythingSaidAndAGoodbye) {
  ConnectAndTakeJob();
  Log("last words");
  desk_.End(v1::JobEnded::OUTCOME_INTERRUPTED, "SIGTERM");
  link_->Leave("SIGTERM", seconds(60));
  const std::vector<Heard> heard = server_.heard();
  ASSERT_TRUE(heard.back().message.has_goodbye());
  EXPECT_EQ(heard.back().message.goodbye().reason(), "SIGTERM");
  EXPECT_TRUE(server_.Await([](const Heard& heard) { return heard.message.has_ended(); }));
  EXPECT_TRUE(server_.Await([](const Heard& heard) { return heard.message.has_log(); }));
}

TEST_F(ControlLinkTest, LeavesWithoutAServerToo) {
  server_.Stop();
  Connect();
  const auto start = std::chrono::steady_clock::now();
  link_->Leave("SIGTERM", seconds(60));
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(30));
}

TEST_F(ControlLinkTest, ManyLinesAndProgressStaySmallAndInOrder) {
  ConnectAndTakeJob();
  for (int i = 1; i <= 2000; ++i) {
    Log(fmt::format("line {}", i));
    Progress(i);
  }
  desk_.End(v1::JobEnded::OUTCOME_SUCCEEDED, "");
  ASSERT_TRUE(desk_.AwaitEndAcknowledged(seconds(60)));
  int64_t number = 0;
  int progress = 0;
  int last_step = 0;
  for (const Heard& heard : server_.heard()) {
    if (heard.message.has_log()) {
      EXPECT_EQ(heard.message.log().number(), ++number);
    }
    if (!heard.message.has_progress()) continue;
    ++progress;
    last_step = heard.message.progress().metrics().step();
  }
  EXPECT_EQ(number, 2000);
  EXPECT_EQ(last_step, 2000);
  EXPECT_LT(progress, 200);
}

}  // namespace
}  // namespace shardmax
