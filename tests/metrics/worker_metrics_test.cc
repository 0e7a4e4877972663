#include "worker/metrics/worker_metrics.h"

#include <chrono>
#include <map>
#include <optional>
#include <string>

#include "tests/worker/job_fixture.h"

namespace shardmax {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;

// One metric as it is collected: its value, or its sum and count.
struct Sample {
  double value = 0;
  uint64_t count = 0;
};

// What a scrape would find: by name and, in braces, the labels but pool and rank.
std::map<std::string, Sample> Collect(const WorkerMetrics& metrics) {
  std::map<std::string, Sample> samples;
  for (const auto& collectable : metrics.collectables()) {
    for (const MetricFamily& family : collectable->Collect()) {
      for (const ClientMetric& metric : family.metric) {
        std::string name = family.name;
        for (const auto& label : metric.label) {
          if (label.name != "pool" && label.name != "rank") name += fmt::format("{{{}}}", label.value);
        }
        Sample& sample = samples[name];
        if (family.type == prometheus::MetricType::Counter) sample.value = metric.counter.value;
        if (family.type == prometheus::MetricType::Gauge) sample.value = metric.gauge.value;
        if (family.type == prometheus::MetricType::Histogram) {
          sample = {metric.histogram.sample_sum, metric.histogram.sample_count};
        }
      }
    }
  }
  return samples;
}

class WorkerMetricsTest : public JobTest {
 protected:
  // Runs `job` on two ranks, and returns what rank 1 serves after it, and what its communicator counted until then.
  void RunAndCollect(const JobRun& job, bool idle = false) {
    SpawnRanks(2, [&](Communicator& comm) {
      WorkerMetrics metrics(comm, "a", "cpu");
      PlannedRequests requests;
      const JobEnd end = RunJob(
          comm, job, {.backend = BackendChoice::kCpu, .threads = 1, .requests = requests, .observers = {&metrics}});
      if (idle) metrics.OnIdle();
      if (comm.rank() != 1) return;
      end_ = end;
      samples_ = Collect(metrics);
      stats_ = comm.stats();
    });
  }

  double Value(const std::string& name) const {
    const auto found = samples_.find(name);
    if (found == samples_.end()) {
      ADD_FAILURE() << "there is no " << name;
      return -1;
    }
    return found->second.value;
  }

  JobEnd end_;
  std::map<std::string, Sample> samples_;
  CommStats stats_;
};

TEST_F(WorkerMetricsTest, FollowAJob) {
  const double before = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  RunAndCollect(Run("steps: 7 checkpoint { every_steps: 4 } schedule { base_lr: 0.25 }"));
  ASSERT_EQ(end_.exit_code, kExitSucceeded) << end_.status;
  EXPECT_EQ(Value("shardmax_job_running"), 1);
  EXPECT_EQ(Value("shardmax_step"), 7);
  EXPECT_EQ(Value("shardmax_total_steps"), 7);
  EXPECT_EQ(Value("shardmax_steps_total"), 7);
  EXPECT_EQ(Value("shardmax_samples_total"), 7 * 4);
  EXPECT_GT(Value("shardmax_loss"), 0);
  EXPECT_NE(Value("shardmax_label_cosine"), 0);
  EXPECT_EQ(Value("shardmax_learning_rate"), 0.25);
  EXPECT_EQ(Value("shardmax_nonfinite_losses_total"), 0);
  EXPECT_EQ(Value("shardmax_checkpoints_total"), 2);
  EXPECT_EQ(samples_["shardmax_checkpoint_seconds"].count, 2U);
  EXPECT_EQ(Value("shardmax_checkpoint_bytes"), 6 * 4 * 4);
  EXPECT_GE(Value("shardmax_checkpoint_timestamp_seconds"), before);
  EXPECT_GT(Value("shardmax_resident_memory_bytes"), 1e6);
  EXPECT_EQ(Value("shardmax_build_info{cpu}{worker}{" + WorkerVersion() + "}"), 1);
}

TEST_F(WorkerMetricsTest, PhasesAddUpToNoMoreThanTheSteps) {
  RunAndCollect(Run());
  double phases = 0;
  for (const char* phase : {"gather", "label", "score", "normalise", "backward"}) {
    const double seconds = Value(fmt::format("shardmax_step_phase_seconds_total{{{}}}", phase));
    EXPECT_GT(seconds, 0) << phase;
    phases += seconds;
  }
  EXPECT_EQ(Value("shardmax_step_phase_seconds_total{scatter}"), 0) << "the features are frozen";
  EXPECT_EQ(samples_["shardmax_step_seconds"].count, 6U);
  EXPECT_LE(phases, Value("shardmax_step_seconds"));
}

TEST_F(WorkerMetricsTest, CountCollectivesAsTheCommunicatorDoes) {
  RunAndCollect(Run(), /*idle=*/true);
  const auto expect = [&](const std::string& operation, const CommStats::Counter& counter) {
    EXPECT_EQ(Value(fmt::format("shardmax_collectives_total{{{}}}", operation)), counter.calls);
    EXPECT_EQ(Value(fmt::format("shardmax_collective_bytes_total{{{}}}", operation)), counter.bytes);
    EXPECT_NEAR(Value(fmt::format("shardmax_collective_seconds_total{{{}}}", operation)), counter.seconds, 1e-9);
  };
  EXPECT_GT(stats_.all_gather.calls, 12);
  EXPECT_GT(stats_.broadcast.calls, 0);
  expect("all_gather", stats_.all_gather);
  expect("all_reduce", stats_.all_reduce);
  expect("reduce_scatter", stats_.reduce_scatter);
  expect("broadcast", stats_.broadcast);
  expect("barrier", stats_.barrier);
}

TEST_F(WorkerMetricsTest, CountTheCollectivesBetweenDevicesOfEachJob) {
  const auto host = MakeThreadGroup(1, std::chrono::seconds(30));
  WorkerMetrics metrics(*host[0], "", "cuda");
  for (int job = 0; job < 2; ++job) {
    const auto devices = MakeThreadGroup(1, std::chrono::seconds(30));
    metrics.OnStart(0, 3);
    for (int step = 0; step < 3; ++step) {
      ASSERT_TRUE(devices[0]->Barrier().ok());
      metrics.OnStep({}, {.comm = devices[0].get()});
    }
  }
  samples_ = Collect(metrics);
  EXPECT_EQ(Value("shardmax_collectives_total{barrier}"), 6);
}

TEST_F(WorkerMetricsTest, CountALossThatIsNotFinite) {
  RunAndCollect(
      Run("schedule { base_lr: 1e6 } steps: 100000 checkpoint { every_steps: 1000000 }"
          "optimizer { sgd { momentum: 0.999 weight_decay: 1 } }"));
  ASSERT_TRUE(absl::IsFailedPrecondition(end_.status)) << end_.status;
  EXPECT_EQ(Value("shardmax_nonfinite_losses_total"), 1);
}

TEST_F(WorkerMetricsTest, AnIdlePoolRunsNoJob) {
  RunAndCollect(Run(), /*idle=*/true);
  EXPECT_EQ(Value("shardmax_job_running"), 0);
  EXPECT_EQ(Value("shardmax_step"), 6) << "the newest step stays";
}

}  // namespace
}  // namespace shardmax
