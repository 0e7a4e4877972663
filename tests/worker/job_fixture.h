// Small jobs that run on ranks-as-threads.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>

#include <random>
#include <string>
#include <vector>

#include "tests/data/npy_builder.h"
#include "tests/data/temp_folder.h"
#include "tests/support/spawn_ranks.h"
#include "worker/job_runner.h"
#include "worker/spec/job_spec.h"

namespace shardmax {

// Answers a job's questions from a plan: `at_poll[k]` at the k-th, 0 after the last.
class PlannedRequests final : public JobRequests {
 public:
  explicit PlannedRequests(std::vector<uint32_t> at_poll = {}) : at_poll_(std::move(at_poll)) {}
  uint32_t Take() override { return polls_ < at_poll_.size() ? at_poll_[polls_++] : 0; }

 private:
  std::vector<uint32_t> at_poll_;
  size_t polls_ = 0;
};

// Writes down what it hears.
class Recorder final : public JobObserver {
 public:
  int64_t first_step = -1, total_steps = -1;
  std::vector<shardmax::v1::StepMetrics> steps;
  std::vector<int64_t> checkpoints;
  int64_t checkpoint_bytes = 0;

  void OnStart(int64_t first, int64_t total) override {
    first_step = first;
    total_steps = total;
  }
  void OnStep(const shardmax::v1::StepMetrics& metrics, const StepCost& /*cost*/) override { steps.push_back(metrics); }
  void OnCheckpoint(int64_t step, double /*seconds*/, int64_t bytes) override {
    checkpoints.push_back(step);
    checkpoint_bytes = bytes;
  }
};

// A folder with a dataset, and jobs on it: 12 rows of width 4 in 6 classes, batches of 4, so 3 steps an epoch.
class JobTest : public testing::Test {
 protected:
  static constexpr int kRows = 12, kDim = 4, kClasses = 6;

  JobTest() {
    std::mt19937 bits(7);
    features_.resize(size_t{kRows} * kDim);
    for (float& x : features_) x = static_cast<float>(bits() % 2001) / 1000.0F - 1;
    for (int row = 0; row < kRows; ++row) labels_.push_back(row % kClasses);
    WriteData("x.npy", "y.npy");
  }

  void WriteData(const std::string& features, const std::string& labels) {
    folder_.Write(features, NpyBytes(NpyDict("<f4", fmt::format("({}, 4)", labels_.size())), BytesOf(features_)));
    folder_.Write(labels, NpyBytes(NpyDict("<i8", fmt::format("({},)", labels_.size())), BytesOf(labels_)));
  }

  // The job with `train` (textproto) laid over it, and its output in the folder "out".
  JobRun Run(const std::string& train = "", bool resume = false) const {
    shardmax::v1::JobSpec spec;
    const std::string text =
        "name: 'small' train { num_classes: 6 dim: 4 batch_size: 4 dataset { features: 'x.npy' labels: 'y.npy' } }";
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &spec));
    EXPECT_TRUE(google::protobuf::TextFormat::MergeFromString(fmt::format("train {{{}}}", train), &spec)) << train;
    if (!spec.train().has_steps() && !spec.train().has_epochs()) spec.mutable_train()->set_steps(6);
    auto resolved = ResolveJobSpec(spec);
    EXPECT_TRUE(resolved.ok()) << resolved.status();
    return {.spec = resolved.ok() ? *resolved : spec,
            .output_folder = folder_.path("out"),
            .resume = resume,
            .base_folder = folder_.path()};
  }

  // Runs `job` on `ranks` threads; how it ended on each. Rank r asks for requests[r], and tells recorders_[r].
  std::vector<JobEnd> RunOn(int ranks, const JobRun& job, std::vector<PlannedRequests> requests = {}) {
    requests.resize(ranks);
    recorders_.assign(ranks, Recorder());
    std::vector<JobEnd> ends(ranks);
    SpawnRanks(ranks, [&](Communicator& comm) {
      const int rank = comm.rank();
      const JobHost host = {
          .backend = BackendChoice::kCpu, .threads = 1, .requests = requests[rank], .observers = {&recorders_[rank]}};
      ends[rank] = RunJob(comm, job, host);
    });
    for (const JobEnd& end : ends) {
      EXPECT_EQ(end.exit_code, ends[0].exit_code);
      EXPECT_EQ(end.status, ends[0].status);
    }
    return ends;
  }

  std::vector<std::string> CheckpointNames() const { return NamesIn(folder_.path("out/checkpoints")); }

  std::string Log() const { return TempFolder::ReadAll(folder_.path("out/log.txt")); }

  TempFolder folder_;
  std::vector<float> features_;  // [n, 4]
  std::vector<int64_t> labels_;  // [n]
  std::vector<Recorder> recorders_;
};

}  // namespace shardmax
