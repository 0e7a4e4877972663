#include "worker/metrics/worker_metrics.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <utility>

#include "worker/options.h"

namespace shardmax {
namespace {

constexpr std::array<const char*, 6> kPhases = {"gather", "label", "score", "normalise", "backward", "scatter"};

// From a millisecond (a small head) to ten minutes (a large one on a slow disk): three buckets a decade.
std::vector<double> SecondsBuckets(double first, double last) {
  std::vector<double> buckets;
  for (double decade = first; decade <= last; decade *= 10) {
    for (const double part : {1.0, 2.0, 5.0}) buckets.push_back(decade * part);
  }
  return buckets;
}

// The resident memory of this process, read when it is asked for.
class ResidentMemory final : public prometheus::Collectable {
 public:
  explicit ResidentMemory(prometheus::Labels labels) : labels_(std::move(labels)) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    std::ifstream file("/proc/self/statm");
    int64_t total_pages = 0;
    int64_t resident_pages = 0;
    file >> total_pages >> resident_pages;
    prometheus::ClientMetric metric;
    for (const auto& [name, value] : labels_) metric.label.push_back({name, value});
    metric.gauge.value = static_cast<double>(resident_pages * sysconf(_SC_PAGESIZE));
    prometheus::MetricFamily family;
    family.name = "shardmax_resident_memory_bytes";
    family.help = "Resident memory of this rank.";
    family.type = prometheus::MetricType::Gauge;
    family.metric.push_back(metric);
    return {family};
  }

 private:
  prometheus::Labels labels_;
};

}  // namespace

prometheus::Counter& WorkerMetrics::AddCounter(const std::string& name, const std::string& help,
                                               const prometheus::Labels& labels) {
  return prometheus::BuildCounter().Name(name).Help(help).Labels(labels_).Register(*registry_).Add(labels);
}

prometheus::Gauge& WorkerMetrics::AddGauge(const std::string& name, const std::string& help,
                                           const prometheus::Labels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Labels(labels_).Register(*registry_).Add(labels);
}

prometheus::Histogram& WorkerMetrics::AddHistogram(const std::string& name, const std::string& help,
                                                   const std::vector<double>& buckets) {
  return prometheus::BuildHistogram().Name(name).Help(help).Labels(labels_).Register(*registry_).Add({}, buckets);
}

void WorkerMetrics::AddOperation(const std::string& name, CommStats::Counter CommStats::*stats) {
  const prometheus::Labels labels = {{"operation", name}};
  operations_.push_back(
      {stats, &AddCounter("shardmax_collectives_total", "Collectives that succeeded.", labels),
       &AddCounter("shardmax_collective_bytes_total", "Payload that this rank sent in collectives.", labels),
       &AddCounter("shardmax_collective_seconds_total", "Time in collectives, waiting included.", labels)});
}

WorkerMetrics::WorkerMetrics(const Communicator& comm, const std::string& pool, const std::string& backend)
    : comm_(comm),
      labels_({{"pool", pool}, {"rank", std::to_string(comm.rank())}}),
      job_running_(AddGauge("shardmax_job_running", "1 while a job runs.")),
      step_(AddGauge("shardmax_step", "Steps done of the job.")),
      total_steps_(AddGauge("shardmax_total_steps", "Steps that the job has.")),
      steps_total_(AddCounter("shardmax_steps_total", "Steps done by this process.")),
      samples_total_(AddCounter("shardmax_samples_total", "Rows of the global batch of those steps.")),
      loss_(AddGauge("shardmax_loss", "Loss of the newest step, in nats.")),
      label_cosine_(AddGauge("shardmax_label_cosine", "Mean cosine of the labels in the newest step.")),
      support_vector_ratio_(
          AddGauge("shardmax_support_vector_ratio",
                   "Share of pairs (row, other class) whose class is a support vector, newest step.")),
      support_vector_recall_(AddGauge(
          "shardmax_support_vector_recall",
          "Share of the support vectors that took part in the newest step of a sampled job that measured it.")),
      learning_rate_(AddGauge("shardmax_learning_rate", "Learning rate of the newest step.")),
      nonfinite_losses_total_(AddCounter("shardmax_nonfinite_losses_total",
                                         "Steps that failed because weights or logits were not finite.")),
      step_seconds_(AddHistogram("shardmax_step_seconds", "Wall time of a step.", SecondsBuckets(1e-3, 10))),
      phase_seconds_total_(),
      checkpoints_total_(AddCounter("shardmax_checkpoints_total", "Checkpoints written.")),
      checkpoint_seconds_(
          AddHistogram("shardmax_checkpoint_seconds", "Time to write a checkpoint.", SecondsBuckets(1e-2, 100))),
      checkpoint_bytes_(AddGauge("shardmax_checkpoint_bytes", "Size of the newest checkpoint, of all ranks together.")),
      checkpoint_timestamp_seconds_(
          AddGauge("shardmax_checkpoint_timestamp_seconds",
                   "When the newest checkpoint was written (Unix time); 0 before the first of a job.")) {
  AddGauge("shardmax_build_info", "1.", {{"version", WorkerVersion()}, {"component", "worker"}, {"backend", backend}})
      .Set(1);
  for (size_t i = 0; i < kPhases.size(); ++i) {
    phase_seconds_total_[i] =
        &AddCounter("shardmax_step_phase_seconds_total", "Time of the steps by phase.", {{"phase", kPhases[i]}});
  }
  AddOperation("all_gather", &CommStats::all_gather);
  AddOperation("all_reduce", &CommStats::all_reduce);
  AddOperation("reduce_scatter", &CommStats::reduce_scatter);
  AddOperation("broadcast", &CommStats::broadcast);
  AddOperation("barrier", &CommStats::barrier);
  collectables_ = {registry_, std::make_shared<ResidentMemory>(labels_)};
}

void WorkerMetrics::CountSince(const CommStats& now, CommStats& counted) {
  for (const Operation& operation : operations_) {
    const CommStats::Counter& after = now.*operation.stats;
    const CommStats::Counter& before = counted.*operation.stats;
    operation.calls->Increment(static_cast<double>(after.calls - before.calls));
    operation.bytes->Increment(static_cast<double>(after.bytes - before.bytes));
    operation.seconds->Increment(after.seconds - before.seconds);
  }
  counted = now;
}

void WorkerMetrics::CountCollectives() {
  CountSince(comm_.stats(), counted_);
}

void WorkerMetrics::OnStart(int64_t first_step, int64_t total_steps) {
  job_running_.Set(1);
  step_.Set(static_cast<double>(first_step));
  total_steps_.Set(static_cast<double>(total_steps));
  checkpoint_timestamp_seconds_.Set(0);
  counted_between_devices_ = {};
  CountCollectives();
}

void WorkerMetrics::OnGoBack(int64_t step) {
  step_.Set(static_cast<double>(step));
}

void WorkerMetrics::OnStep(const v1::StepMetrics& metrics, const StepCost& cost) {
  step_.Set(metrics.step());
  steps_total_.Increment();
  samples_total_.Increment(static_cast<double>(cost.global_rows));
  loss_.Set(metrics.loss());
  label_cosine_.Set(metrics.label_cosine());
  support_vector_ratio_.Set(metrics.support_vector_ratio());
  if (metrics.has_support_vector_recall()) support_vector_recall_.Set(metrics.support_vector_recall());
  learning_rate_.Set(metrics.lr());
  step_seconds_.Observe(cost.seconds);
  const PhaseSeconds& phases = cost.phases;
  const std::array<double, 6> seconds = {phases.gather,    phases.label,    phases.score,
                                         phases.normalise, phases.backward, phases.scatter};
  for (size_t i = 0; i < seconds.size(); ++i) phase_seconds_total_[i]->Increment(std::max(seconds[i], 0.0));
  CountCollectives();
  if (cost.comm != nullptr && cost.comm != &comm_) CountSince(cost.comm->stats(), counted_between_devices_);
}

void WorkerMetrics::OnStepFailed(const absl::Status& status) {
  // What ShardedHead::Step says of weights and logits that are not finite, and of nothing else.
  if (absl::IsFailedPrecondition(status)) nonfinite_losses_total_.Increment();
}

void WorkerMetrics::OnCheckpoint(int64_t /*step*/, double seconds, int64_t bytes) {
  checkpoints_total_.Increment();
  checkpoint_seconds_.Observe(seconds);
  checkpoint_bytes_.Set(static_cast<double>(bytes));
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  checkpoint_timestamp_seconds_.Set(std::chrono::duration<double>(now).count());
  CountCollectives();
}

void WorkerMetrics::OnIdle() {
  job_running_.Set(0);
  CountCollectives();
}

}  // namespace shardmax
