// Sampled heads in live jobs, beside the batch job on the same rows.
#include "tests/worker/live_fixture.h"

namespace shardmax {
namespace {

using testing::ElementsAre;

constexpr char kRandom[] = "num_classes: 40 sampling { random { rate: 0.3 } recall_every_steps: 2 } ";
constexpr char kNearest[] =
    "num_classes: 40 sampling { nearest { rate: 0.3 neighbours: 4 rebuild_every_steps: 2 } recall_every_steps: 2 } ";
constexpr char kAll[] = "num_classes: 40 ";

class LiveSamplingTest : public LiveJobTest {
 protected:
  LiveSamplingTest() { backend_ = BackendChoice::kCpu; }

  // Drops what the last job left.
  void Clear() { std::filesystem::remove_all(folder_.path("out")); }

  // The metrics of all steps of the batch job with the same fields.
  std::vector<v1::StepMetrics> RunBatch(int ranks, const std::string& train) {
    const auto ends = RunOn(
        ranks, Run(fmt::format("steps: {} batch_size: 12 optimizer {{ sgd {{ momentum: 0.9 }} }} {}", kSteps, train)));
    EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
    Clear();
    return recorders_[0].steps;
  }

  // Brings the steps [trainer.steps_done(), end).
  void BringUpTo(int end, int t, Trainer& trainer, int checkpoint_at = -1) {
    for (int step = trainer.steps_done(); step < end; ++step) {
      const auto [features, labels] = RowsOf(t, step);
      const v1::HeadMessage message = trainer.Step(step, features, labels, step == checkpoint_at);
      EXPECT_TRUE(message.has_step()) << message.ShortDebugString();
    }
    if (end == kSteps) trainer.SayReceived().IgnoreError();
  }

  std::string LastCheckpoint() const {
    const std::string folder = folder_.path("out/checkpoints/") + CheckpointNames().back();
    std::string bytes;
    for (const std::string& name : NamesIn(folder)) {
      if (name.ends_with(".safetensors")) bytes += TempFolder::ReadAll(folder + "/" + name);
    }
    return bytes;
  }

  static void ExpectEqual(const std::vector<v1::StepMetrics>& live, const std::vector<v1::StepMetrics>& batch) {
    ASSERT_EQ(live.size(), batch.size());
    for (size_t step = 0; step < batch.size(); ++step) {
      EXPECT_NEAR(live[step].loss(), batch[step].loss(), 1e-5 * batch[step].loss()) << step;
      EXPECT_NEAR(live[step].support_vector_ratio(), batch[step].support_vector_ratio(), 1e-6) << step;
      EXPECT_EQ(live[step].has_support_vector_recall(), batch[step].has_support_vector_recall()) << step;
      EXPECT_NEAR(live[step].support_vector_recall(), batch[step].support_vector_recall(), 1e-6) << step;
    }
  }
};

TEST_F(LiveSamplingTest, TrainsAsTheBatchJobOnTheSameRows) {
  for (const std::string sampling : {kRandom, kNearest}) {
    for (const int ranks : {1, 2, 3}) {
      SCOPED_TRACE(sampling + std::to_string(ranks));
      const auto batch = RunBatch(ranks, sampling);
      const auto ends = RunLive(ranks, LiveRun(false, sampling), [&](int t, LiveDesk& desk) {
        Trainer trainer(desk, t);
        BringUpTo(kSteps, t, trainer);
      });
      EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
      ExpectEqual(recorders_[0].steps, batch);
      Clear();
    }
  }
  EXPECT_NE(RunBatch(1, kAll)[1].loss(), RunBatch(1, kRandom)[1].loss()) << "some classes are left out";
  EXPECT_NE(RunBatch(1, kNearest)[3].loss(), RunBatch(1, kRandom)[3].loss()) << "and not the same ones";
}

TEST_F(LiveSamplingTest, ResumesAndGoesBackAsIfNothingWas) {
  for (const std::string sampling : {kRandom, kNearest}) {
    SCOPED_TRACE(sampling);
    RunLive(2, LiveRun(false, sampling), [&](int t, LiveDesk& desk) {
      Trainer trainer(desk, t);
      BringUpTo(kSteps, t, trainer);
    });
    const auto undisturbed = recorders_[0].steps;
    const std::string weights = LastCheckpoint();
    Clear();

    const auto stopped = RunLive(2, LiveRun(false, sampling), [&](int t, LiveDesk& desk) {
      {
        Trainer trainer(desk, t);
        BringUpTo(5, t, trainer, /*checkpoint_at=*/2);
        EXPECT_EQ(trainer.Load(3).load().step(), 3);
      }
      if (t == 1) asked_.Ask(kRequestStop);
    });
    EXPECT_EQ(stopped[0].exit_code, kExitStopped) << stopped[0].status;
    EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000003"));
    const auto ends = RunLive(2, LiveRun(true, sampling), [&](int t, LiveDesk& desk) {
      Trainer trainer(desk, t);
      EXPECT_EQ(trainer.steps_done(), 3);
      BringUpTo(kSteps, t, trainer);
    });
    EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
    ASSERT_EQ(recorders_[0].steps.size(), 3U);
    for (int step = 3; step < kSteps; ++step) {
      EXPECT_EQ(recorders_[0].steps[step - 3].loss(), undisturbed[step].loss()) << step;
    }
    EXPECT_EQ(LastCheckpoint(), weights);
    Clear();
  }
}

TEST_F(LiveSamplingTest, BeginsAgainWithTheInitialWeightsAndWithoutTheirGraph) {
  RunLive(2, LiveRun(false, kNearest), [&](int t, LiveDesk& desk) {
    Trainer trainer(desk, t);
    for (int step = 0; step < 4; ++step) {
      const auto [features, labels] = RowsOf(t, step);
      EXPECT_TRUE(trainer.Step(step, features, labels).has_step());
    }
    EXPECT_EQ(trainer.Load(0).load().step(), 0);
    for (int step = 0; step < kSteps; ++step) {
      const auto [features, labels] = RowsOf(t, step);
      EXPECT_TRUE(trainer.Step(step, features, labels).has_step());
    }
    trainer.SayReceived().IgnoreError();
  });
  const auto& steps = recorders_[0].steps;
  ASSERT_EQ(steps.size(), 4U + kSteps);
  for (int step = 0; step < 4; ++step) EXPECT_EQ(steps[4 + step].loss(), steps[step].loss()) << step;
}

}  // namespace
}  // namespace shardmax
