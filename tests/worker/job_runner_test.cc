// Jobs that come from no file, several in one process, with requests and observers.
#include <filesystem>
#include <limits>

#include "tests/worker/job_fixture.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using JobRunner = JobTest;

TEST_F(JobRunner, TellsEveryRankOfStartStepsAndCheckpoints) {
  const auto ends = RunOn(2, Run("checkpoint { every_steps: 4 } log_every_steps: 100"));
  EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
  for (const Recorder& recorder : recorders_) {
    EXPECT_EQ(recorder.first_step, 0);
    EXPECT_EQ(recorder.total_steps, 6);
    ASSERT_EQ(recorder.steps.size(), 6U) << "thinning the log does not thin the events";
    EXPECT_EQ(recorder.steps[4].step(), 5);
    EXPECT_EQ(recorder.steps[4].epoch(), 1);
    EXPECT_GT(recorder.steps[4].loss(), 0);
    EXPECT_GT(recorder.steps[4].samples_per_second(), 0);
    EXPECT_THAT(recorder.checkpoints, ElementsAre(4, 6));
    EXPECT_EQ(recorder.checkpoint_bytes, 6 * 4 * 4);
  }
}

TEST_F(JobRunner, RunsOneJobAfterAnotherInAProcess) {
  SpawnRanks(2, [&](Communicator& comm) {
    for (const char* name : {"first", "second"}) {
      JobRun job = Run();
      job.output_folder = folder_.path(name);
      PlannedRequests requests;
      const JobEnd end = RunJob(comm, job, {.threads = 1, .requests = requests});
      EXPECT_EQ(end.exit_code, kExitSucceeded) << end.status;
    }
  });
  EXPECT_EQ(TempFolder::ReadAll(folder_.path("first/job.json")), TempFolder::ReadAll(folder_.path("second/job.json")));
  EXPECT_THAT(TempFolder::ReadAll(folder_.path("second/log.txt")), HasSubstr("succeeded"));
}

TEST_F(JobRunner, KeepsCosinesAsTheJobSaysAndLogsIt) {
  EXPECT_EQ(RunOn(2, Run("cosines: RECOMPUTE"))[0].exit_code, kExitSucceeded);
  EXPECT_THAT(Log(), HasSubstr("cosines computed twice"));
  JobRun kept = Run();
  kept.output_folder = folder_.path("kept");
  EXPECT_EQ(RunOn(2, kept)[0].exit_code, kExitSucceeded);
  EXPECT_THAT(TempFolder::ReadAll(folder_.path("kept/log.txt")), HasSubstr("cosines kept in float32"));
}

// The rounding of the state is a function of seed, step, class and column, and the files hold what memory held.
TEST_F(JobRunner, ResumesBitForBitWithStateInBfloat16) {
  for (const std::string kind : {"sgd { momentum: 0.9 }", "adamw { }"}) {
    const std::string optimizer =
        fmt::format("optimizer {{ state: BFLOAT16 {} }} checkpoint {{ every_steps: 3 }}", kind);
    JobRun whole = Run(optimizer);
    whole.output_folder = folder_.path("whole " + kind);
    JobRun parts = Run(optimizer + " steps: 3");
    parts.output_folder = folder_.path("parts " + kind);
    JobRun rest = Run(optimizer, true);
    rest.output_folder = parts.output_folder;
    JobRun other_ranks = Run(optimizer + " steps: 9", true);
    other_ranks.output_folder = parts.output_folder;
    for (const JobRun* job : {&whole, &parts, &rest}) EXPECT_EQ(RunOn(2, *job)[0].exit_code, kExitSucceeded);
    for (const std::string& file : NamesIn(whole.output_folder + "/checkpoints/step-00000006")) {
      const std::string path = "/checkpoints/step-00000006/" + file;
      EXPECT_EQ(TempFolder::ReadAll(parts.output_folder + path), TempFolder::ReadAll(whole.output_folder + path))
          << path;
    }
    EXPECT_EQ(recorders_[0].checkpoint_bytes, 6 * 4 * (kind == "adamw { }" ? 8 : 6));
    EXPECT_THAT(TempFolder::ReadAll(whole.output_folder + "/checkpoints/step-00000006/manifest.json"),
                HasSubstr("\"state_dtype\": \"BF16\""));
    EXPECT_THAT(TempFolder::ReadAll(whole.output_folder + "/log.txt"), HasSubstr("optimizer state in bfloat16"));
    EXPECT_EQ(RunOn(3, other_ranks)[0].exit_code, kExitSucceeded);
  }
}

// Every class is brought to the checkpoint's step before it is written, and counts from there after a resume.
TEST_F(JobRunner, ResumesASampledHeadBitForBit) {
  for (const std::string state : {"FLOAT32", "BFLOAT16"}) {
    const std::string fields = fmt::format(
        "sampling {{ random {{ rate: 0.3 }} }} checkpoint {{ every_steps: 4 }} schedule {{ cosine {{ }} }}"
        "optimizer {{ sgd {{ momentum: 0.9 weight_decay: 0.1 }} state: {} }} steps: 10",
        state);
    JobRun whole = Run(fields);
    whole.output_folder = folder_.path("whole " + state);
    JobRun parts = Run(fields);
    parts.output_folder = folder_.path("parts " + state);
    EXPECT_EQ(RunOn(2, whole)[0].exit_code, kExitSucceeded);
    EXPECT_EQ(RunOn(2, parts, {PlannedRequests({0, 0, 0, kRequestStop}), PlannedRequests()})[0].exit_code,
              kExitStopped);
    parts.resume = true;
    EXPECT_EQ(RunOn(2, parts)[0].exit_code, kExitSucceeded);
    for (const std::string& file : NamesIn(whole.output_folder + "/checkpoints/step-00000010")) {
      const std::string path = "/checkpoints/step-00000010/" + file;
      EXPECT_EQ(TempFolder::ReadAll(parts.output_folder + path), TempFolder::ReadAll(whole.output_folder + path))
          << path;
    }
    EXPECT_THAT(TempFolder::ReadAll(whole.output_folder + "/log.txt"), HasSubstr("30 % of the classes a step"));
  }
}

// The graph is in the checkpoint, as no resumed run could build it from other weights than those of then.
TEST_F(JobRunner, ResumesANearestHeadBitForBitAndOnOtherRanks) {
  const std::string fields =
      "sampling { nearest { rate: 0.5 neighbours: 2 rebuild_every_steps: 3 } recall_every_steps: 4 } "
      "checkpoint { every_steps: 5 } schedule { cosine { } } optimizer { sgd { momentum: 0.9 weight_decay: 0.1 } } "
      "steps: 11";
  JobRun whole = Run(fields);
  whole.output_folder = folder_.path("whole");
  EXPECT_EQ(RunOn(2, whole)[0].exit_code, kExitSucceeded);
  EXPECT_EQ(recorders_[0].checkpoint_bytes, 6 * (4 * 2 * 4 + 2 * 4));
  const std::string manifest = TempFolder::ReadAll(whole.output_folder + "/checkpoints/step-00000011/manifest.json");
  EXPECT_THAT(manifest, HasSubstr("\"neighbours\": 2"));
  for (const int ranks : {2, 3}) {
    JobRun parts = Run(fields);
    parts.output_folder = folder_.path(fmt::format("parts {}", ranks));
    EXPECT_EQ(RunOn(2, parts, {PlannedRequests({0, 0, 0, 0, kRequestStop})})[0].exit_code, kExitStopped);
    parts.resume = true;
    const auto ends = RunOn(ranks, parts);
    EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
    if (ranks != 2) continue;
    for (const std::string& file : NamesIn(whole.output_folder + "/checkpoints/step-00000011")) {
      const std::string path = "/checkpoints/step-00000011/" + file;
      EXPECT_EQ(TempFolder::ReadAll(parts.output_folder + path), TempFolder::ReadAll(whole.output_folder + path))
          << path;
    }
  }
}

TEST_F(JobRunner, RefusesACheckpointWithoutTheGraphThatTheJobHas) {
  JobRun random = Run("sampling { random { rate: 0.5 } }");
  EXPECT_EQ(RunOn(2, random)[0].exit_code, kExitSucceeded);
  std::filesystem::remove(folder_.path("out/job.json"));
  const auto ends = RunOn(2, Run("sampling { nearest { rate: 0.5 rebuild_every_steps: 3 } } steps: 9", true));
  EXPECT_NE(ends[0].exit_code, kExitSucceeded);
  EXPECT_THAT(Message(ends[0].status),
              HasSubstr("the checkpoint has 0 neighbours of each class, but after 6 steps the job has 5"));
}

TEST_F(JobRunner, BuildsTheGraphOfNearestClassesAndMeasuresRecall) {
  for (const std::string init : {"", "init { weights: 'out/checkpoints/step-00000006' }"}) {
    JobRun run =
        Run("sampling { nearest { rate: 0.5 neighbours: 3 rebuild_every_steps: 2 } recall_every_steps: 3 }"
            "log_every_steps: 100 " +
            init);
    if (!init.empty()) run.output_folder = folder_.path("from weights");
    const auto ends = RunOn(2, run);
    EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
    const std::string log = TempFolder::ReadAll(run.output_folder + "/log.txt");
    EXPECT_THAT(log, HasSubstr("50 % of the classes a step"));
    EXPECT_THAT(log, HasSubstr("step 3: built the graph of nearest classes in "));
    EXPECT_THAT(log, HasSubstr("step 5: built the graph of nearest classes in "));
    EXPECT_EQ(log.find("step 1: built") != std::string::npos, !init.empty()) << "drawn weights have no neighbours";
    const std::string metrics = TempFolder::ReadAll(run.output_folder + "/metrics.jsonl");
    EXPECT_THAT(metrics, testing::ContainsRegex("\"step\":3,.*\"support_vector_recall\":[01]")) << "though not due";
    EXPECT_THAT(metrics, testing::ContainsRegex("\"step\":6,.*\"support_vector_recall\":[01]"));
  }
}

TEST_F(JobRunner, RefusesAJobThatEndsBeforeItsFirstGraph) {
  const auto ends = RunOn(2, Run("sampling { nearest { rate: 0.5 rebuild_every_steps: 6 } } epochs: 2"));
  EXPECT_EQ(ends[0].exit_code, kExitInvalidUse);
  EXPECT_THAT(Message(ends[0].status), HasSubstr("the steps of the job, which are 6"));
}

TEST_F(JobRunner, WritesACheckpointWhenAnyRankAsksAndGoesOn) {
  const auto ends = RunOn(2, Run(), {PlannedRequests(), PlannedRequests({0, kRequestCheckpoint})});
  EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000002", "step-00000006"));
}

TEST_F(JobRunner, StopsWithACheckpointWhenAnyRankAsks) {
  const auto ends = RunOn(2, Run(), {PlannedRequests(), PlannedRequests({0, 0, kRequestStop})});
  EXPECT_EQ(ends[0].exit_code, kExitStopped) << ends[0].status;
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000003"));
  EXPECT_THAT(Log(), HasSubstr("stopped on request"));

  RunOn(2, Run("", true));
  EXPECT_EQ(recorders_[1].first_step, 3);
  EXPECT_THAT(CheckpointNames(), ElementsAre("step-00000003", "step-00000006"));
}

TEST_F(JobRunner, LeavesWithoutACheckpointWhenAnyRankIsToAbandonTheJob) {
  const auto ends = RunOn(2, Run(), {PlannedRequests(), PlannedRequests({0, kRequestAbandon | kRequestStop})});
  EXPECT_TRUE(absl::IsAborted(ends[0].status)) << ends[0].status;
  EXPECT_THAT(CheckpointNames(), ElementsAre());
  EXPECT_EQ(recorders_[0].steps.size(), 1U) << "the step of the request counts no more";
  EXPECT_THAT(Log(), HasSubstr("left without a checkpoint: step 2"));
}

TEST_F(JobRunner, WritesNoCheckpointWhereARankMayNot) {
  class LostFolder final : public JobRequests {
   public:
    uint32_t Take() override { return 0; }
    absl::Status MayWrite() override { return absl::AbortedError("attempt 2 has the folder"); }
  };
  std::vector<JobEnd> ends(2);
  SpawnRanks(2, [&](Communicator& comm) {
    PlannedRequests may;
    LostFolder may_not;
    JobRequests& requests = comm.rank() == 1 ? static_cast<JobRequests&>(may_not) : may;
    ends[comm.rank()] = RunJob(comm, Run("checkpoint { every_steps: 2 }"), {.threads = 1, .requests = requests});
  });
  for (const JobEnd& end : ends) {
    EXPECT_TRUE(absl::IsAborted(end.status)) << end.status;
    EXPECT_THAT(Message(end.status), HasSubstr("rank 1: attempt 2 has the folder"));
  }
  EXPECT_THAT(CheckpointNames(), ElementsAre());
}

TEST_F(JobRunner, FindsABadValidationRowBeforeTheFirstStepWhicheverRankReadsIt) {
  const std::vector<float> good = features_;
  for (const int row : {0, 11}) {
    features_ = good;
    features_[row * kDim + 1] = std::numeric_limits<float>::quiet_NaN();
    WriteData("vx.npy", "vy.npy");
    const auto ends = RunOn(3, Run("validation { features: 'vx.npy' labels: 'vy.npy' }"));
    EXPECT_EQ(ends[0].exit_code, kExitJobFailed);
    EXPECT_THAT(Message(ends[0].status),
                HasSubstr(fmt::format("rank {}: train.validation.features", row == 0 ? 0 : 2)));
    EXPECT_THAT(Message(ends[0].status), HasSubstr(fmt::format("vx.npy: row {}: column 1 is nan", row)));
    for (const Recorder& recorder : recorders_) EXPECT_EQ(recorder.steps.size(), 0U);
  }
}

TEST_F(JobRunner, IgnoresBadValidationRowsWithoutALabel) {
  features_[5 * kDim] = std::numeric_limits<float>::quiet_NaN();
  labels_[5] = -1;
  WriteData("vx.npy", "vy.npy");
  const auto ends = RunOn(2, Run("validation { features: 'vx.npy' labels: 'vy.npy' }"));
  EXPECT_EQ(ends[0].exit_code, kExitSucceeded) << ends[0].status;
}

// Runs the job on 3 ranks, of which rank 2 looks for the files in the folder "other".
JobEnd EndWithOtherFilesOnRank2(const TempFolder& folder, const JobRun& job) {
  std::vector<JobEnd> ends(3);
  SpawnRanks(3, [&](Communicator& comm) {
    JobRun mine = job;
    if (comm.rank() == 2) mine.base_folder = folder.path("other");
    PlannedRequests requests;
    ends[comm.rank()] = RunJob(comm, mine, {.threads = 1, .requests = requests});
  });
  EXPECT_EQ(ends[0].status, ends[2].status);
  return ends[1];
}

TEST_F(JobRunner, NamesTheRankThatSeesOtherFiles) {
  std::filesystem::create_directory(folder_.path("other"));
  WriteData("other/x.npy", "other/y.npy");
  EXPECT_EQ(EndWithOtherFilesOnRank2(folder_, Run()).status, absl::OkStatus());
  std::filesystem::remove_all(folder_.path("out"));

  labels_[7] = 0;
  WriteData("other/x.npy", "other/y.npy");
  JobEnd end = EndWithOtherFilesOnRank2(folder_, Run());
  EXPECT_EQ(end.exit_code, kExitJobFailed);
  EXPECT_THAT(Message(end.status), HasSubstr("rank 2: train.dataset.labels: " + folder_.path("other/y.npy") +
                                             " has 12 rows of int64, checksum xxh3_128:"));
  EXPECT_THAT(Message(end.status), HasSubstr("on rank 0: every rank must see the same files"));

  labels_[7] = 1;
  features_[20] += 1;
  WriteData("other/x.npy", "other/y.npy");
  EXPECT_THAT(Message(EndWithOtherFilesOnRank2(folder_, Run()).status),
              HasSubstr("rank 2: train.dataset.features: " + folder_.path("other/x.npy")));

  features_.resize(4 * kDim);
  labels_.resize(4);
  WriteData("other/x.npy", "other/y.npy");
  EXPECT_THAT(Message(EndWithOtherFilesOnRank2(folder_, Run()).status), HasSubstr("has 4 rows of float32"));
}

TEST_F(JobRunner, CountsNoTimeOfValidationsInItsSpeed) {
  // A validation costs as much as hundreds of steps.
  const size_t copies = 200;
  for (size_t i = 1; i < copies; ++i) {
    features_.insert(features_.end(), features_.begin(), features_.begin() + kRows * kDim);
    labels_.insert(labels_.end(), labels_.begin(), labels_.begin() + kRows);
  }
  WriteData("vx.npy", "vy.npy");
  RunOn(1, Run("steps: 60 validation { features: 'vx.npy' labels: 'vy.npy' }"));
  double best_after_epoch = 0, best_at_end_of_epoch = 0, best = 0;
  for (const auto& step : recorders_[0].steps) {
    double& which = step.step() % 3 == 0 ? best_at_end_of_epoch : step.step() % 3 == 1 ? best_after_epoch : best;
    which = std::max(which, step.samples_per_second());
  }
  EXPECT_GT(best_at_end_of_epoch, best / 8);
  EXPECT_GT(best_after_epoch, best / 8);
}

}  // namespace
}  // namespace shardmax
