#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "shardmax/client.h"
#include "tests/client/scripted_server.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::Job JobIn(v1::JobState state) {
  v1::Job job;
  job.set_id("glyphs-7");
  job.set_state(state);
  return job;
}

class StreamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server_.Start();
    auto client = Client::Create({.server = server_.address(),
                                  .timeout = milliseconds(60'000),
                                  .first_backoff = milliseconds(1),
                                  .longest_backoff = milliseconds(20)});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    stream_.on_break = [this](const absl::Status&) { ++breaks_; };
    stream_.on_reconnect = [this] { ++reconnects_; };
  }

  // Collects the states that Watch delivers.
  absl::Status Watch() {
    return client_->Watch(
        "glyphs",
        [this](const v1::Job& job) {
          states_.push_back(job.state());
          return true;
        },
        stream_);
  }

  ScriptedJobs jobs_;
  ScriptedServer server_{jobs_};
  StreamOptions stream_;
  int breaks_ = 0;
  int reconnects_ = 0;
  std::vector<v1::JobState> states_;
  std::unique_ptr<Client> client_;
};

TEST_F(StreamTest, WatchEndsWithTheFinalState) {
  jobs_.watch = [](int, grpc::ServerContext&, grpc::ServerWriter<v1::Job>& out) {
    for (const auto state : {v1::PENDING, v1::RUNNING, v1::FAILED}) out.Write(JobIn(state));
    return grpc::Status::OK;
  };
  EXPECT_TRUE(Watch().ok());
  EXPECT_THAT(states_, ElementsAre(v1::PENDING, v1::RUNNING, v1::FAILED));
  EXPECT_THAT(jobs_.requests("WatchJob"), ElementsAre("job: \"glyphs-7\""));
  EXPECT_EQ(breaks_, 0);
  EXPECT_EQ(client_->Wait("glyphs")->state(), v1::FAILED);
}

TEST_F(StreamTest, WatchGoesOnAfterTheServerWasKilledAndStartedAgain) {
  jobs_.watch = [](int call, grpc::ServerContext& context, grpc::ServerWriter<v1::Job>& out) {
    out.Write(JobIn(call == 0 ? v1::RUNNING : v1::SUCCEEDED));
    return call == 0 ? WaitForCancel(context) : grpc::Status::OK;
  };
  std::jthread restart;
  stream_.on_break = [&](const absl::Status& why) {
    ++breaks_;
    EXPECT_THAT(Message(why), HasSubstr(server_.address()));
  };
  const absl::Status status = client_->Watch(
      "glyphs",
      [&](const v1::Job& job) {
        states_.push_back(job.state());
        if (job.state() == v1::RUNNING) {
          restart = std::jthread([this] {
            server_.Kill();
            std::this_thread::sleep_for(milliseconds(200));
            server_.Start();
          });
        }
        return true;
      },
      stream_);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(states_, ElementsAre(v1::RUNNING, v1::SUCCEEDED));
  EXPECT_EQ(breaks_, 1);
  EXPECT_EQ(reconnects_, 1);
}

TEST_F(StreamTest, AnOrderlyEndBeforeTheFinalStateIsABreak) {
  jobs_.watch = [](int call, grpc::ServerContext&, grpc::ServerWriter<v1::Job>& out) {
    out.Write(JobIn(call < 2 ? v1::RUNNING : v1::STOPPED));
    return call == 0 ? grpc::Status::OK : grpc::Status::CANCELLED;
  };
  EXPECT_TRUE(Watch().ok());
  EXPECT_THAT(states_, ElementsAre(v1::RUNNING, v1::RUNNING, v1::STOPPED));
  EXPECT_EQ(breaks_, 2);
}

TEST_F(StreamTest, ManyTriesOfOneBreakAreToldOnce) {
  jobs_.watch = [](int call, grpc::ServerContext&, grpc::ServerWriter<v1::Job>& out) {
    if (call < 4) return call == 2 ? grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "streams") : kUnavailable;
    out.Write(JobIn(v1::SUCCEEDED));
    return grpc::Status::OK;
  };
  EXPECT_TRUE(Watch().ok());
  EXPECT_EQ(breaks_, 1);
  EXPECT_EQ(reconnects_, 1);
}

TEST_F(StreamTest, ARefusedStreamIsAnErrorAtOnce) {
  jobs_.failures["WatchJob"] = {{grpc::StatusCode::RESOURCE_EXHAUSTED, "too many streams"}};
  EXPECT_TRUE(absl::IsResourceExhausted(Watch()));
  EXPECT_EQ(breaks_, 0);
}

TEST_F(StreamTest, AJobThatWasDeletedDuringABreakIsNotFound) {
  jobs_.watch = [](int, grpc::ServerContext&, grpc::ServerWriter<v1::Job>&) { return kUnavailable; };
  jobs_.failures["GetJob"] = {grpc::Status::OK, kUnavailable, {grpc::StatusCode::NOT_FOUND, "no such job"}};
  EXPECT_TRUE(absl::IsNotFound(Watch()));
}

TEST_F(StreamTest, AServerThatStaysAwayEndsTheStreamInTime) {
  jobs_.watch = [](int, grpc::ServerContext& context, grpc::ServerWriter<v1::Job>& out) {
    out.Write(JobIn(v1::RUNNING));
    return WaitForCancel(context);
  };
  stream_.reconnect_for = milliseconds(200);
  std::jthread kill;
  const absl::Status status = client_->Watch(
      "glyphs",
      [&](const v1::Job&) {
        kill = std::jthread([this] { server_.Kill(); });
        return true;
      },
      stream_);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(Message(status), HasSubstr("no answer from the server at " + server_.address()));
}

TEST_F(StreamTest, AStopTokenEndsAQuietStreamAndABreak) {
  std::stop_source stop;
  stream_.stop = stop.get_token();
  jobs_.watch = [&](int, grpc::ServerContext& context, grpc::ServerWriter<v1::Job>&) {
    stop.request_stop();
    return WaitForCancel(context);
  };
  EXPECT_TRUE(absl::IsCancelled(Watch()));

  std::stop_source again;
  stream_.stop = again.get_token();
  jobs_.watch = [](int, grpc::ServerContext&, grpc::ServerWriter<v1::Job>&) { return kUnavailable; };
  stream_.on_break = [&](const absl::Status&) { again.request_stop(); };
  EXPECT_TRUE(absl::IsCancelled(Watch()));
}

TEST_F(StreamTest, ACallbackEndsTheStreamWithFalse) {
  jobs_.watch = [](int, grpc::ServerContext& context, grpc::ServerWriter<v1::Job>& out) {
    out.Write(JobIn(v1::RUNNING));
    return WaitForCancel(context);
  };
  EXPECT_TRUE(client_->Watch("glyphs", [](const v1::Job&) { return false; }).ok());
}

TEST_F(StreamTest, LogsGoOnAfterTheLastLineThatCame) {
  jobs_.logs = [](int call, grpc::ServerContext&, grpc::ServerWriter<v1::LogLine>& out) {
    for (int sequence = 1 + 3 * call; sequence <= 3 * (call + 1); ++sequence) {
      v1::LogLine line;
      line.set_sequence(sequence);
      out.Write(line);
    }
    return call == 2 ? grpc::Status::OK : kUnavailable;
  };
  std::vector<int64_t> sequences;
  const absl::Status status = client_->StreamLogs(
      "glyphs", true,
      [&](const v1::LogLine& line) {
        sequences.push_back(line.sequence());
        return true;
      },
      0, stream_);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(sequences, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_THAT(jobs_.requests("StreamLogs"),
              ElementsAre("job: \"glyphs-7\" follow: true", "job: \"glyphs-7\" follow: true after_sequence: 3",
                          "job: \"glyphs-7\" follow: true after_sequence: 6"));
}

TEST_F(StreamTest, MetricsGoOnAfterTheLastStepThatCame) {
  jobs_.metrics = [](int call, grpc::ServerContext&, grpc::ServerWriter<v1::StepMetrics>& out) {
    v1::StepMetrics step;
    step.set_step(call == 0 ? 40 : 50);
    out.Write(step);
    return call == 1 ? grpc::Status::OK : kUnavailable;
  };
  std::vector<int> steps;
  const absl::Status status = client_->StreamMetrics(
      "glyphs", false,
      [&](const v1::StepMetrics& step) {
        steps.push_back(step.step());
        return true;
      },
      30, stream_);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(steps, ElementsAre(40, 50));
  EXPECT_THAT(jobs_.requests("StreamMetrics"),
              ElementsAre("job: \"glyphs-7\" after_step: 30", "job: \"glyphs-7\" after_step: 40"));
}

}  // namespace
}  // namespace shardmax
