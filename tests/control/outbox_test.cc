#include "worker/control/outbox.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace shardmax {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr milliseconds kInterval(250);

// A message in a few characters: "log 3", "progress 7", "checkpoint 5", "ended".
std::string Brief(const v1::PoolMessage& message) {
  if (message.has_log()) return fmt::format("log {}", message.log().number());
  if (message.has_progress()) return fmt::format("progress {}", message.progress().metrics().step());
  if (message.has_checkpoint()) return fmt::format("checkpoint {}", message.checkpoint().step());
  return message.has_ended() ? "ended" : "?";
}

class OutboxTest : public ::testing::Test {
 protected:
  OutboxTest() { outbox_.Begin("job-1", 2); }

  void Log(const std::string& text) { outbox_.AddLog("info", text, std::chrono::system_clock::now()); }

  void Progress(int step) {
    v1::StepMetrics metrics;
    metrics.set_step(step);
    outbox_.SetProgress(metrics);
  }

  std::vector<std::string> Drain() {
    std::vector<std::string> all;
    while (const auto message = outbox_.Next(now_)) all.push_back(Brief(*message));
    return all;
  }

  void AckLog(int64_t number, const std::string& job = "job-1", int attempt = 2) {
    v1::LogAck ack;
    ack.set_job(job);
    ack.set_attempt(attempt);
    ack.set_number(number);
    outbox_.OnLogAck(ack);
  }

  Outbox outbox_{4, kInterval};
  Outbox::Clock::time_point now_ = Outbox::Clock::now();
};

TEST_F(OutboxTest, SendsLinesThenProgressThenCheckpointThenTheEnd) {
  outbox_.SetTotalSteps(100);
  outbox_.SetCheckpoint(5, 1000, 0.5);
  Progress(5);
  Log("a");
  outbox_.End(v1::JobEnded::OUTCOME_SUCCEEDED, "");
  EXPECT_THAT(Drain(), ElementsAre("log 1", "progress 5", "checkpoint 5", "ended"));
  EXPECT_EQ(outbox_.NextTime(), std::nullopt);
}

TEST_F(OutboxTest, SendsTheNewestPairsOfAnEvaluation) {
  outbox_.SetPairs(0, 900);
  const auto first = outbox_.Next(now_);
  ASSERT_TRUE(first.has_value() && first->has_progress());
  EXPECT_EQ(first->progress().job(), "job-1");
  EXPECT_EQ(first->progress().attempt(), 2);
  EXPECT_FALSE(first->progress().has_metrics());
  outbox_.SetPairs(300, 900);
  EXPECT_FALSE(outbox_.Next(now_).has_value()) << "they come too fast for each to be sent";
  outbox_.SetPairs(600, 900);
  const auto next = outbox_.Next(now_ + kInterval);
  ASSERT_TRUE(next.has_value());
  EXPECT_EQ(next->progress().pairs().done(), 600);
  EXPECT_EQ(next->progress().pairs().total(), 900);
  EXPECT_FALSE(outbox_.Next(now_ + 2 * kInterval).has_value());
}

TEST_F(OutboxTest, EachMessageNamesJobAndAttempt) {
  outbox_.SetTotalSteps(100);
  Log("a");
  Progress(1);
  outbox_.SetCheckpoint(1, 12345, 0.5);
  outbox_.End(v1::JobEnded::OUTCOME_JOB_FAILED, "no such file");
  const auto log = outbox_.Next(now_)->log();
  EXPECT_EQ(log.job(), "job-1");
  EXPECT_EQ(log.attempt(), 2);
  EXPECT_EQ(log.level(), "info");
  EXPECT_EQ(log.text(), "a");
  EXPECT_GT(log.time().seconds(), 1'600'000'000);
  const auto progress = outbox_.Next(now_)->progress();
  EXPECT_EQ(progress.job(), "job-1");
  EXPECT_EQ(progress.attempt(), 2);
  EXPECT_EQ(progress.total_steps(), 100);
  const auto checkpoint = outbox_.Next(now_)->checkpoint();
  EXPECT_EQ(checkpoint.job(), "job-1");
  EXPECT_EQ(checkpoint.attempt(), 2);
  EXPECT_EQ(checkpoint.bytes(), 12345);
  EXPECT_EQ(checkpoint.seconds(), 0.5);
  const auto ended = outbox_.Next(now_)->ended();
  EXPECT_EQ(ended.job(), "job-1");
  EXPECT_EQ(ended.attempt(), 2);
  EXPECT_EQ(ended.outcome(), v1::JobEnded::OUTCOME_JOB_FAILED);
  EXPECT_EQ(ended.reason(), "no such file");
}

TEST_F(OutboxTest, OnlyTheNewestProgressIsSentAndNotTooOften) {
  outbox_.SetTotalSteps(100);
  Progress(1);
  Progress(2);
  EXPECT_THAT(Drain(), ElementsAre("progress 2"));
  Progress(3);
  EXPECT_THAT(Drain(), ElementsAre());
  EXPECT_EQ(outbox_.NextTime(), now_ + kInterval);
  Progress(4);
  now_ += kInterval;
  EXPECT_THAT(Drain(), ElementsAre("progress 4"));
}

TEST_F(OutboxTest, TheLastProgressGoesOutWithTheEndWithoutDelay) {
  outbox_.SetTotalSteps(100);
  Progress(1);
  Drain();
  Progress(100);
  outbox_.End(v1::JobEnded::OUTCOME_SUCCEEDED, "");
  EXPECT_THAT(Drain(), ElementsAre("progress 100", "ended"));
}

TEST_F(OutboxTest, ANewConnectionRepeatsWhatWasNotAcknowledged) {
  outbox_.SetTotalSteps(100);
  for (const char* text : {"a", "b", "c"}) Log(text);
  Progress(5);
  outbox_.SetCheckpoint(5, 1000, 0.5);
  outbox_.End(v1::JobEnded::OUTCOME_STOPPED, "");
  Drain();
  AckLog(2);
  EXPECT_THAT(Drain(), ElementsAre());
  outbox_.Rewind();
  EXPECT_THAT(Drain(), ElementsAre("log 3", "progress 5", "checkpoint 5", "ended"));
  EXPECT_EQ(outbox_.ForHello()->step(), 5);
}

TEST_F(OutboxTest, TheAcknowledgedEndForgetsTheJob) {
  Log("a");
  outbox_.End(v1::JobEnded::OUTCOME_SUCCEEDED, "");
  outbox_.OnEndedAck("job-1", 1);
  outbox_.OnEndedAck("job-2", 2);
  EXPECT_TRUE(outbox_.has_job());
  EXPECT_FALSE(outbox_.running());
  outbox_.OnEndedAck("job-1", 2);
  EXPECT_FALSE(outbox_.has_job());
  EXPECT_FALSE(outbox_.ForHello().has_value());
  outbox_.Rewind();
  EXPECT_THAT(Drain(), ElementsAre());
}

TEST_F(OutboxTest, AnAcknowledgementBeforeTheEndIsOfSomethingElse) {
  outbox_.OnEndedAck("job-1", 2);
  EXPECT_TRUE(outbox_.running());
}

TEST_F(OutboxTest, NumbersBeginAnewWithEachAttempt) {
  Log("a");
  outbox_.End(v1::JobEnded::OUTCOME_POOL_FAILED, "");
  outbox_.OnEndedAck("job-1", 2);
  outbox_.Begin("job-1", 3);
  Log("b");
  EXPECT_EQ(outbox_.Next(now_)->log().number(), 1);
}

TEST_F(OutboxTest, TheOldestLinesMakeRoomForOneThatCountsThem) {
  for (int i = 1; i <= 10; ++i) Log(fmt::format("line {}", i));
  const auto first = outbox_.Next(now_)->log();
  EXPECT_EQ(first.number(), 7);
  EXPECT_EQ(first.level(), "warning");
  EXPECT_THAT(first.text(), HasSubstr("7 lines are missing"));
  EXPECT_EQ(outbox_.Next(now_)->log().text(), "line 8");
  EXPECT_THAT(Drain(), ElementsAre("log 9", "log 10"));
}

TEST_F(OutboxTest, NoLineIsSkippedWhenSentOnesMakeRoom) {
  for (int i = 1; i <= 3; ++i) Log("x");
  Drain();
  for (int i = 4; i <= 6; ++i) Log("x");
  // 1 to 3 were sent; 4 to 6 were not, and are all there.
  EXPECT_THAT(Drain(), ElementsAre("log 4", "log 5", "log 6"));
}

TEST_F(OutboxTest, TheCountOfMissingLinesBeginsAnewWhenItIsAcknowledged) {
  for (int i = 1; i <= 6; ++i) Log("x");
  Drain();
  AckLog(6);
  for (int i = 7; i <= 11; ++i) Log("x");
  EXPECT_THAT(outbox_.Next(now_)->log().text(), HasSubstr("2 lines are missing"));
}

TEST_F(OutboxTest, WhatAJobThatEndedSaysIsIgnored) {
  outbox_.SetTotalSteps(3);
  outbox_.End(v1::JobEnded::OUTCOME_SUCCEEDED, "");
  Drain();
  Log("late");
  Progress(9);
  outbox_.SetCheckpoint(9, 1, 1);
  outbox_.End(v1::JobEnded::OUTCOME_JOB_FAILED, "twice");
  EXPECT_THAT(Drain(), ElementsAre());
}

}  // namespace
}  // namespace shardmax
