#include "worker/spec/resume_rules.h"

#include <gmock/gmock.h>

#include "tests/spec/sample_specs.h"

namespace shardmax {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> Changes(const std::string& before, const std::string& now) {
  return ChangesOfTheJob(Resolved(MinimalWith(before)).train(), Resolved(MinimalWith(now)).train());
}

TEST(ResumeRules, FindNothingInTheSameJob) {
  EXPECT_THAT(Changes("", ""), IsEmpty());
  EXPECT_THAT(Changes("train { loss { preset: SOFTMAX } }", "train { loss { margin { m3: 0 } } }"), IsEmpty());
}

TEST(ResumeRules, LetLengthCheckpointsValidationAndLoggingChange) {
  EXPECT_THAT(Changes("",
                      "name: 'other' train { epochs: 30 checkpoint { every_steps: 7 keep: 1 } log_every_steps: 9"
                      "  validation { features: 'vx.npy' labels: 'vy.npy' } }"),
              IsEmpty());
  EXPECT_THAT(Changes("train { epochs: 3 }", "train { steps: 3 }"), IsEmpty());
  EXPECT_THAT(Changes("", "train { cosines: RECOMPUTE cosines_memory_mib: 1 }"), IsEmpty());
  EXPECT_THAT(Changes("", "train { storage: MMAP }"), IsEmpty());
  EXPECT_THAT(Changes("train { validation { features: 'vx.npy' labels: 'vy.npy' } }", ""), IsEmpty());
}

TEST(ResumeRules, NameEveryFieldThatChangesTheMathematicsOrTheOrderOfTheData) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"num_classes: 30000", "train.num_classes was 20000, is 30000"},
      {"dim: 64", "train.dim was 128, is 64"},
      {"batch_size: 32", "train.batch_size was 512, is 32"},
      {"sampling { random { rate: 0.1 } }", "train.sampling was not set, is random"},
      {"sampling { nearest { rate: 0.1 } }", "train.sampling was not set, is nearest"},
      {"optimizer { state: BFLOAT16 }", "train.optimizer.state was FLOAT32, is BFLOAT16"},
      {"dataset { features: 'z.npy' }", "train.dataset.features was \"x.npy\", is \"z.npy\""},
      {"dataset { labels: 'z.npy' }", "train.dataset.labels was \"y.npy\", is \"z.npy\""},
      {"dataset { shuffle: true }", "train.dataset.shuffle was false, is true"},
      {"loss { scale: 64 }", "train.loss.scale was 32, is 64"},
      {"loss { extension: EASY }", "train.loss.extension was MONOTONE, is EASY"},
      {"loss { warmup_steps: 5 }", "train.loss.warmup_steps was 0, is 5"},
      {"optimizer { sgd { momentum: 0.9 } }", "train.optimizer.sgd.momentum was 0, is 0.9"},
      {"optimizer { adamw {} }", "train.optimizer was sgd, is adamw"},
      {"schedule { base_lr: 0.2 }", "train.schedule.base_lr was 0.1, is 0.2"},
      {"schedule { cosine {} }", "train.schedule was constant, is cosine"},
      {"init { seed: 2 }", "train.init.seed was 1, is 2"},
      {"init { stddev: 1 }", "train.init.stddev was 0.01, is 1"},
      {"precision: BFLOAT16", "train.precision was FLOAT32, is BFLOAT16"},
  };
  for (const auto& [now, change] : cases) EXPECT_THAT(Changes("", "train {" + now + "}"), ElementsAre(change)) << now;
}

TEST(ResumeRules, NameWhatChangesWhichClassesTakePart) {
  const std::string before = "train { sampling { nearest { rate: 0.1 } } }";
  EXPECT_THAT(Changes(before, "train { sampling { random { rate: 0.1 } } }"),
              ElementsAre("train.sampling was nearest, is random"));
  EXPECT_THAT(
      Changes(before,
              "train { sampling { nearest { rate: 0.2 neighbours: 9 rebuild_every_steps: 7 } "
              "recall_every_steps: 5 } }"),
      ElementsAre("train.sampling.nearest.rate was 0.1, is 0.2", "train.sampling.nearest.neighbours was 64, is 9",
                  "train.sampling.nearest.rebuild_every_steps was 2000, is 7",
                  "train.sampling.recall_every_steps was 0, is 5"));
}

TEST(ResumeRules, LetTrainersAndTheLimitOfTheirRowsChange) {
  const std::string live = "train { steps: 9 live { trainers: 2 } }";
  EXPECT_THAT(Changes(live, "train { steps: 9 live { trainers: 3 } batch_size: 32 }"), IsEmpty());
  EXPECT_THAT(Changes("train { steps: 9 }", live), ElementsAre("train was dataset, is live"));
}

TEST(ResumeRules, TellAllChangesAtOnce) {
  EXPECT_THAT(Changes("train { schedule { step { milestones: [1, 2] } } }",
                      "train { schedule { step { milestones: [1, 3] } } init { weights: 'w' } }"),
              ElementsAre("train.schedule.step.milestones was [1, 2], is [1, 3]",
                          "train.init.stddev was 0.01, is not set", "train.init.weights was not set, is \"w\""));
}

std::vector<std::string> LengthChanges(const std::string& schedule, int64_t before, int64_t now) {
  return ChangesOfTheLength(Resolved(MinimalWith("train { schedule {" + schedule + "} }")).train(), before, now);
}

TEST(ResumeRules, LetAJobGrowWhereItsRatesDoNotDependOnTheLength) {
  EXPECT_THAT(LengthChanges("", 100, 200), IsEmpty());
  EXPECT_THAT(LengthChanges("step { milestones: 50 }", 100, 200), IsEmpty());
  EXPECT_THAT(LengthChanges("cosine {}", 100, 100), IsEmpty());
  EXPECT_THAT(LengthChanges("cosine {}", 100, 200),
              ElementsAre("train.epochs was 100 steps, is 200: the learning rate of every step depends on it "
                          "(train.schedule.cosine)"));
  EXPECT_THAT(LengthChanges("polynomial {}", 100, 99),
              ElementsAre("train.epochs was 100 steps, is 99: the learning rate of every step depends on it "
                          "(train.schedule.polynomial)"));
}

}  // namespace
}  // namespace shardmax
