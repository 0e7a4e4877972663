#include "client/cpp/retry.h"

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

class RetryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server_.Start();
    auto client = Client::Create({.server = server_.address(),
                                  .timeout = milliseconds(60'000),
                                  .first_backoff = milliseconds(1),
                                  .longest_backoff = milliseconds(20),
                                  .on_retry = [this](const absl::Status& why) { retries_.push_back(Message(why)); }});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  ScriptedJobs jobs_;
  ScriptedServer server_{jobs_};
  std::vector<std::string> retries_;
  std::unique_ptr<Client> client_;
};

TEST_F(RetryTest, ReadsAreRepeatedWhileTheServerIsUnavailable) {
  jobs_.failures["GetJob"] = {kUnavailable, kUnavailable};
  const auto job = client_->Get("glyphs-1");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->id(), "glyphs-1");
  EXPECT_THAT(retries_, ElementsAre(HasSubstr(server_.address()), HasSubstr("scripted")));
}

TEST_F(RetryTest, OtherErrorsAreNotRepeated) {
  jobs_.failures["GetJob"] = {{grpc::StatusCode::NOT_FOUND, "no job \"x-1\""}};
  const auto job = client_->Get("x-1");
  EXPECT_TRUE(absl::IsNotFound(job.status()));
  EXPECT_EQ(Message(job.status()), "no job \"x-1\"");
  EXPECT_EQ(jobs_.requests("GetJob").size(), 1);
}

TEST_F(RetryTest, SubmitIsRepeatedWithItsKeyAndEverySubmitHasAnother) {
  jobs_.failures["SubmitJob"] = {kUnavailable};
  v1::JobSpec spec;
  spec.set_name("glyphs");
  ASSERT_TRUE(client_->Submit(spec).ok());
  ASSERT_TRUE(client_->Submit(spec).ok());
  const auto requests = jobs_.requests("SubmitJob");
  ASSERT_EQ(requests.size(), 3);
  EXPECT_EQ(requests[0], requests[1]);
  EXPECT_NE(requests[1], requests[2]);
  EXPECT_THAT(requests[0], ::testing::ContainsRegex("idempotency_key: \"[0-9a-f]{32}\""));
}

TEST_F(RetryTest, SubmitTakesTheKeyOfTheCaller) {
  ASSERT_TRUE(client_->Submit({}, "nightly 24").ok());
  EXPECT_THAT(jobs_.requests("SubmitJob"), ElementsAre(HasSubstr("idempotency_key: \"nightly 24\"")));
}

TEST_F(RetryTest, StopIsRepeatedForTheJobThatTheNameMeantAtFirst) {
  jobs_.failures["StopJob"] = {kUnavailable};
  const auto job = client_->Stop("glyphs");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_THAT(jobs_.requests("StopJob"), ElementsAre("job: \"glyphs-7\"", "job: \"glyphs-7\""));
}

TEST_F(RetryTest, DeleteAndCheckpointAreSentOnceAndSayWhatIsUnknown) {
  jobs_.failures["DeleteJob"] = {kUnavailable};
  jobs_.failures["CheckpointNow"] = {kUnavailable};
  for (const absl::Status& status : {client_->Delete("glyphs"), client_->CheckpointNow("glyphs")}) {
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(Message(status), HasSubstr("unknown whether the server did it"));
  }
  EXPECT_EQ(jobs_.requests("DeleteJob").size(), 1);
  EXPECT_EQ(jobs_.requests("CheckpointNow").size(), 1);
  EXPECT_TRUE(client_->Delete("glyphs").ok());
}

TEST_F(RetryTest, EveryCallWaitsForAServerThatComesUpLater) {
  server_.Kill();
  const std::jthread later([this] {
    std::this_thread::sleep_for(milliseconds(300));
    server_.Start();
  });
  EXPECT_TRUE(client_->Delete("glyphs").ok());
  EXPECT_TRUE(client_->Get("glyphs").ok());
  EXPECT_EQ(jobs_.requests("DeleteJob").size(), 1);
}

TEST_F(RetryTest, AServerThatIsNotThereIsUnavailableWhenTheTimeIsUp) {
  server_.Kill();
  const CallOptions brief = {.timeout = milliseconds(1000)};
  for (const absl::Status& status : {client_->Get("x", brief).status(), client_->Delete("x", brief)}) {
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(Message(status), HasSubstr("no answer from the server at " + server_.address()));
  }
  EXPECT_FALSE(retries_.empty());
}

TEST_F(RetryTest, ACallThatHangsEndsAtItsDeadline) {
  const auto job = client_->Get("hangs", {.timeout = milliseconds(100)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(job.status())) << job.status();
  EXPECT_THAT(Message(job.status()), HasSubstr(server_.address()));
}

TEST_F(RetryTest, AStopTokenEndsACallAndTheWaitBetweenTries) {
  std::stop_source stop;
  const std::jthread later([&] {
    std::this_thread::sleep_for(milliseconds(50));
    stop.request_stop();
  });
  EXPECT_TRUE(absl::IsCancelled(client_->Get("hangs", {.stop = stop.get_token()}).status()));
  server_.Kill();
  EXPECT_TRUE(absl::IsCancelled(client_->Get("x", {.stop = stop.get_token()}).status()));
  EXPECT_TRUE(absl::IsCancelled(client_->Delete("x", {.stop = stop.get_token()})));
}

TEST_F(RetryTest, ListAllReadsEveryPageOrAsManyAsAskedFor) {
  for (int i = 5; i > 0; --i) jobs_.jobs.emplace_back().set_id("glyphs-" + std::to_string(i));
  v1::ListJobsRequest request;
  request.set_pool("a");
  const auto all = client_->ListAll(request);
  ASSERT_TRUE(all.ok()) << all.status();
  ASSERT_EQ(all->size(), 5);
  EXPECT_EQ(all->front().id(), "glyphs-5");
  EXPECT_EQ(all->back().id(), "glyphs-1");
  EXPECT_THAT(jobs_.requests("ListJobs"), ::testing::Each(HasSubstr("pool: \"a\"")));
  EXPECT_EQ(client_->ListAll(request, 3)->size(), 3);
}

}  // namespace
}  // namespace shardmax
