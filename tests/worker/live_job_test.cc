#include "tests/worker/live_fixture.h"

namespace shardmax {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class LiveTrainingTest : public LiveJobTest {
 protected:
  struct Outcome {
    std::vector<double> losses;    // By step, as trainer 0 was told.
    std::vector<float> gradients;  // Of all rows, of all steps and trainers in turn.
  };

  Outcome Train(int ranks) {
    Outcome outcome;
    std::vector<std::vector<float>> gradients(kTrainers * kSteps);
    const auto ends = RunLive(ranks, LiveRun(), [&](int t, LiveDesk& desk) {
      Trainer trainer(desk, t);
      for (int step = 0; step < kSteps; ++step) {
        const auto [features, labels] = RowsOf(t, step);
        const v1::HeadMessage message = trainer.Step(step, features, labels);
        ASSERT_TRUE(message.has_step()) << message.ShortDebugString();
        EXPECT_EQ(message.step().global_rows(), kRows);
        EXPECT_EQ(message.step().last(), step + 1 == kSteps);
        if (t == 0) outcome.losses.push_back(message.step().loss());
        std::vector<float>& mine = gradients[step * kTrainers + t];
        mine.resize(features.size());
        ASSERT_EQ(message.step().feature_gradients().size(), 4 * mine.size());
        DecodeValues(message.step().feature_gradients(), v1::WIRE_FLOAT32, mine);
      }
      EXPECT_EQ(trainer.SayReceived(), absl::OutOfRangeError("the end"));
    });
    EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
    for (const auto& each : gradients) {
      outcome.gradients.insert(outcome.gradients.end(), each.begin(), each.end());
    }
    std::filesystem::remove_all(folder_.path("out"));
    return outcome;
  }
};

TEST_F(LiveTrainingTest, DoesNotDependOnTheNumberOfRanks) {
  const Outcome alone = Train(1);
  ASSERT_EQ(alone.losses.size(), static_cast<size_t>(kSteps));
  EXPECT_LT(alone.losses.back(), alone.losses.front());
  for (const int ranks : {2, 3}) {
    SCOPED_TRACE(ranks);
    const Outcome outcome = Train(ranks);
    ASSERT_EQ(outcome.losses.size(), alone.losses.size());
    for (int step = 0; step < kSteps; ++step) EXPECT_NEAR(outcome.losses[step], alone.losses[step], 1e-5);
    ASSERT_EQ(outcome.gradients.size(), alone.gradients.size());
    for (size_t i = 0; i < alone.gradients.size(); ++i) EXPECT_NEAR(outcome.gradients[i], alone.gradients[i], 1e-5);
  }
}

TEST_F(LiveJobTest, GoesBackAndRepeatsItselfBitForBit) {
  const auto ends = RunLive(3, LiveRun(), [&](int t, LiveDesk& desk) {
    Trainer trainer(desk, t);
    std::vector<std::string> answers;
    const auto step = [&](int number) {
      const auto [features, labels] = RowsOf(t, number);
      const v1::HeadMessage message = trainer.Step(number, features, labels, /*checkpoint=*/number == 1);
      EXPECT_TRUE(message.has_step()) << message.ShortDebugString();
      return message.step().feature_gradients();
    };
    for (int number = 0; number < 4; ++number) answers.push_back(step(number));
    EXPECT_EQ(trainer.Load(2).load().step(), 2);
    EXPECT_EQ(desk.Describe()->steps_done(), 2);
    for (int number = 2; number < 4; ++number) EXPECT_EQ(step(number), answers[number]);
    const v1::Refusal refusal = trainer.Load(3).refusal();
    EXPECT_EQ(refusal.code(), static_cast<int>(absl::StatusCode::kNotFound));
    EXPECT_EQ(refusal.steps_done(), 4);
    EXPECT_EQ(trainer.Load(0).load().step(), 0);
    for (int number = 0; number < kSteps; ++number) {
      const std::string answer = step(number);
      if (number < 4) {
        EXPECT_EQ(answer, answers[number]);
      }
    }
    trainer.SayReceived().IgnoreError();
  });
  EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000002", "step-00000006"));
  const std::string metrics = TempFolder::ReadAll(folder_.path("out/metrics.jsonl"));
  EXPECT_EQ(std::ranges::count(metrics, '\n'), kSteps);
}

TEST_F(LiveJobTest, StopsWithACheckpointWhileATrainerIsAway) {
  const auto ends = RunLive(2, LiveRun(), [&](int t, LiveDesk& desk) {
    Trainer trainer(desk, t);
    const auto [features, labels] = RowsOf(t, 1);
    EXPECT_TRUE(trainer.Step(0, features, labels).has_step());
    if (t == 1) asked_.Ask(kRequestStop);
  });
  EXPECT_EQ(ends[0].exit_code, kExitStopped) << ends[0].status;
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000001"));
}

TEST_F(LiveJobTest, TellsConnectedTrainersThatTheirStepIsTheLast) {
  const auto ends = RunLive(2, LiveRun(), [&](int t, LiveDesk& desk) {
    Trainer trainer(desk, t);
    const auto [features, labels] = RowsOf(t, 1);
    EXPECT_FALSE(trainer.Step(0, features, labels).step().last());
    if (t == 1) asked_.Ask(kRequestStop);
    if (t == 1) std::this_thread::sleep_for(std::chrono::milliseconds(400));  // The ranks meet once without it.
    const v1::StepReply reply = trainer.Step(1, features, labels).step();
    EXPECT_TRUE(reply.last());
    EXPECT_EQ(reply.checkpoint_step(), 2);
    EXPECT_EQ(trainer.SayReceived(), absl::OutOfRangeError("the end"));
  });
  EXPECT_EQ(ends[0].exit_code, kExitStopped) << ends[0].status;
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000002"));
}

TEST_F(LiveJobTest, GivesTheLastAnswerToATrainerThatLostIt) {
  for (const int ranks : {1, 2, 3}) {
    SCOPED_TRACE(ranks);
    const auto ends = RunLive(ranks, LiveRun(), [&](int t, LiveDesk& desk) {
      std::string lost;
      const auto [features, labels] = RowsOf(t, 3);
      {
        Trainer trainer(desk, t);
        for (int step = 0; step < kSteps; ++step) {
          lost = trainer.Step(step, features, labels).SerializeAsString();
        }
        if (t == 0) {
          EXPECT_EQ(trainer.SayReceived(), absl::OutOfRangeError("the end"));
        }
      }
      if (t == 0) return;
      Trainer again(desk, t);
      EXPECT_EQ(again.steps_done(), kSteps);
      const v1::HeadMessage answer = again.Step(kSteps - 1, features, labels);
      EXPECT_TRUE(answer.step().last());
      EXPECT_EQ(answer.SerializeAsString(), lost);
      EXPECT_EQ(again.Load(0).refusal().message(), "the job has made its last step");
      EXPECT_EQ(again.SayReceived(), absl::OutOfRangeError("the end"));
    });
    EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
    std::filesystem::remove_all(folder_.path("out"));
  }
}

TEST_F(LiveJobTest, EndsAtLastWithoutATrainerThatNeverSaysThatItHasTheAnswer) {
  last_answer_wait_ = std::chrono::milliseconds(50);
  const auto ends = RunLive(2, LiveRun(), [&](int t, LiveDesk& desk) {
    Trainer trainer(desk, t);
    const auto [features, labels] = RowsOf(t, 3);
    for (int step = 0; step < kSteps; ++step) EXPECT_TRUE(trainer.Step(step, features, labels).has_step());
    EXPECT_EQ(trainer.End(), absl::OutOfRangeError("the end"));
  });
  EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
  EXPECT_THAT(Log(), HasSubstr("2 trainers have not said that they have the answer to the last step"));
}

TEST_F(LiveJobTest, DoesNotWaitForALastAnswerWhenItIsToStop) {
  const auto ends = RunLive(2, LiveRun(), [&](int t, LiveDesk& desk) {
    Trainer trainer(desk, t);
    const auto [features, labels] = RowsOf(t, 3);
    for (int step = 0; step < kSteps; ++step) EXPECT_TRUE(trainer.Step(step, features, labels).has_step());
    if (t == 1) asked_.Ask(kRequestStop);
    EXPECT_EQ(trainer.End(), absl::OutOfRangeError("the end"));
  });
  EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
}

TEST_F(LiveJobTest, EndsWithoutACheckpointWhenItIsTakenAway) {
  const auto ends = RunLive(2, LiveRun(), [&](int t, LiveDesk& desk) {
    if (t == 0) return;
    Trainer trainer(desk, t);
    asked_.Ask(kRequestAbandon);
    EXPECT_TRUE(absl::IsUnavailable(trainer.End()));
  });
  EXPECT_TRUE(absl::IsAborted(ends[0].status)) << ends[0].status;
  EXPECT_TRUE(CheckpointNames().empty());
}

TEST_F(LiveJobTest, NeedsAWorkerThatServesTrainers) {
  const std::vector<JobEnd> ends = RunOn(1, LiveRun());
  EXPECT_EQ(ends[0].exit_code, kExitInvalidUse);
  EXPECT_THAT(Message(ends[0].status), HasSubstr("train.live: this worker serves no trainers"));
}

}  // namespace
}  // namespace shardmax
