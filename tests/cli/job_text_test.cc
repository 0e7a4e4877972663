#include "client/cli/job_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "client/cli/eta.h"
#include "client/cli/job_display.h"
#include "client/cli/text.h"

namespace shardmax {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

v1::Job Running(int step) {
  v1::Job job;
  job.set_id("glyphs-1");
  job.set_state(v1::RUNNING);
  job.set_pool("a");
  job.set_ranks(2);
  job.set_attempt(1);
  job.set_total_steps(5000);
  job.mutable_spec()->mutable_train()->set_batch_size(512);
  if (step > 0) {
    v1::StepMetrics& metrics = *job.mutable_progress();
    metrics.set_step(step);
    metrics.set_loss(2.51312);
    metrics.set_samples_per_second(8120.4);
    metrics.set_support_vector_ratio(0.00123);
  }
  return job;
}

TEST(JobTextTest, ALineHasTheNumbersOfTheNewestStep) {
  EXPECT_EQ(JobLine(Running(1240), 192),
            "glyphs-1 RUNNING  step 1,240/5,000 (24%)  loss 2.5131  eta 3m12s  8,120 samples/s  sv 0.0012");
  v1::Job job = Running(1240);
  job.set_restarts(2);
  job.set_stop_requested(true);
  job.set_total_steps(0);
  job.mutable_progress()->set_validation_top1(0.9871);
  EXPECT_EQ(
      JobLine(job, {}),
      "glyphs-1 RUNNING (restart 2), stopping  step 1,240  loss 2.5131  8,120 samples/s  sv 0.0012  top-1 98.71%");
}

TEST(JobTextTest, WithoutProgressALineSaysWhatTheJobWaitsFor) {
  v1::Job job = Running(0);
  EXPECT_EQ(JobLine(job, {}), "glyphs-1 RUNNING on pool a (2 ranks)");
  job.set_state(v1::PENDING);
  job.set_reason("no pool has 4 ranks\x1b[2J");
  EXPECT_EQ(JobLine(job, {}), "glyphs-1 PENDING: no pool has 4 ranks\\x1b[2J");
}

TEST(JobTextTest, AnEvaluationCountsPairs) {
  v1::Job job = Running(0);
  job.set_total_steps(0);
  job.mutable_pairs()->set_done(300'000'000'000);
  job.mutable_pairs()->set_total(1'200'000'000'000);
  EXPECT_EQ(JobLine(job, 192), "glyphs-1 RUNNING  25% of 1,200,000,000,000 pairs  eta 3m12s");
  EXPECT_THAT(JobBar(job, {}, 140), StartsWith("[######..................] glyphs-1 RUNNING  25% of"));

  Eta eta;
  eta.Observe(job, 100);
  EXPECT_EQ(eta.seconds(), std::nullopt);
  job.mutable_pairs()->set_done(600'000'000'000);
  eta.Observe(job, 110);
  EXPECT_EQ(eta.seconds(), 20);
}

TEST(JobTextTest, NumbersThatAreNoneAreShownAsSuch) {
  v1::Job job = Running(3);
  job.mutable_progress()->set_loss(std::numeric_limits<double>::quiet_NaN());
  job.mutable_progress()->set_samples_per_second(std::numeric_limits<double>::infinity());
  EXPECT_THAT(JobLine(job, std::numeric_limits<double>::infinity()),
              EndsWith("step 3/5,000 (0%)  loss nan  sv 0.0012"));
}

TEST(JobTextTest, ABarFitsTheTerminalAtEveryWidth) {
  EXPECT_THAT(JobBar(Running(2500), 192, 200), StartsWith("[############............] glyphs-1 RUNNING  step 2,500"));
  for (size_t width = 0; width < 200; ++width) {
    EXPECT_LE(WidthOf(JobBar(Running(2500), 192, width)), width);
    EXPECT_LE(WidthOf(JobBar(Running(0), 192, width)), width);
  }
  EXPECT_THAT(JobBar(Running(2500), 192, 79), EndsWith("(50%)  loss 2.5131  eta 3m12s"));
}

TEST(JobTextTest, ABarStaysWithinItsEnds) {
  EXPECT_THAT(JobBar(Running(5000), {}, 140), StartsWith("[########################]"));
  EXPECT_THAT(JobBar(Running(6000), {}, 140), StartsWith("[########################]"));
  EXPECT_THAT(JobBar(Running(1), {}, 140), StartsWith("[........................]"));
}

TEST(JobTextTest, TheEndSaysWhatToDoNext) {
  v1::Job job = Running(1240);
  job.set_state(v1::FAILED);
  job.set_reason("step 1241: the weights have diverged");
  job.set_restarts(1);
  job.mutable_started()->set_seconds(1000);
  job.mutable_finished()->set_seconds(1192);
  job.set_checkpoint_step(1000);
  job.set_folder("/state/jobs/glyphs-1");
  EXPECT_EQ(EndText(job),
            "glyphs-1 FAILED after 3m12s and 1 restart: step 1241: the weights have diverged\n"
            "  step 1,240/5,000 (24%)  loss 2.5131  8,120 samples/s  sv 0.0012\n"
            "  newest checkpoint: step 1,000 in /state/jobs/glyphs-1\n"
            "  what happened: shardmax logs glyphs-1");
}

TEST(EtaTest, GoesByTheSamplesPerSecondAtFirst) {
  Eta eta;
  eta.Observe(Running(0), 0);
  EXPECT_FALSE(eta.seconds());
  v1::Job job = Running(4000);
  job.mutable_progress()->set_samples_per_second(512);  // A step a second.
  eta.Observe(job, 1);
  EXPECT_DOUBLE_EQ(*eta.seconds(), 1000);
  job.clear_spec();  // Only the first message has it.
  eta.Observe(job, 2);
  EXPECT_DOUBLE_EQ(*eta.seconds(), 1000);
}

TEST(EtaTest, GoesByTheStepsOfTheLastMinuteOnceThereAreSome) {
  Eta eta;
  eta.Observe(Running(1000), 0);
  eta.Observe(Running(1010), 5);
  EXPECT_DOUBLE_EQ(*eta.seconds(), 3990 / 2.0);
  for (int s = 10; s <= 120; s += 5) eta.Observe(Running(1010 + 20 * (s - 5)), s);  // 20 steps a second from here on.
  EXPECT_NEAR(*eta.seconds(), (5000 - 3310) / 20.0, 1e-9);
}

TEST(EtaTest, BeginsAnewWhenTheJobDoes) {
  Eta eta;
  eta.Observe(Running(1000), 0);
  eta.Observe(Running(2000), 10);
  v1::Job job = Running(1500);
  job.set_attempt(2);
  eta.Observe(job, 20);
  job.mutable_progress()->set_step(1600);
  eta.Observe(job, 30);
  EXPECT_DOUBLE_EQ(*eta.seconds(), 340);
  job.set_state(v1::PENDING);
  eta.Observe(job, 31);
  EXPECT_FALSE(eta.seconds());
}

class JobDisplayTest : public ::testing::Test {
 protected:
  ~JobDisplayTest() override { std::fclose(file_); }

  std::string Printed() {
    std::fflush(file_);
    std::string text(1 << 16, '\0');
    std::rewind(file_);
    text.resize(std::fread(text.data(), 1, text.size(), file_));
    return text;
  }

  std::FILE* file_ = std::tmpfile();
};

TEST_F(JobDisplayTest, PrintsALineEveryFewSecondsAndWhenMoreThanNumbersChange) {
  JobDisplay display(Terminal(file_, false, false));
  display.Show(Running(10), 0);
  display.Show(Running(20), 1);
  display.Show(Running(30), 4.9);
  display.Show(Running(40), 5);
  v1::Job job = Running(50);
  job.set_stop_requested(true);
  display.Show(job, 6);
  const std::string text = Printed();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3) << text;
  EXPECT_THAT(text, HasSubstr("step 10/"));
  EXPECT_THAT(text, HasSubstr("step 40/"));
  EXPECT_THAT(text, HasSubstr("stopping  step 50/"));
  EXPECT_THAT(text, Not(HasSubstr("\033")));
  EXPECT_THAT(text, Not(HasSubstr("\r")));
}

TEST_F(JobDisplayTest, RedrawsOneLineOnATerminalAndMakesRoomForNotes) {
  JobDisplay display(Terminal(file_, true, false));
  display.Show(Running(10), 0);
  display.Show(Running(20), 0.1);
  display.Note("connected again");
  const std::string text = Printed();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  EXPECT_THAT(text, EndsWith("\r\033[Kconnected again\n"));
  EXPECT_THAT(text, StartsWith("\r\033[K["));
}

}  // namespace
}  // namespace shardmax
