// The metrics of one rank: docs/metrics.md.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "worker/comm/communicator.h"
#include "worker/job_events.h"

namespace shardmax {

// Follows the jobs of this rank. The thread that runs them calls; a step costs some forty additions to atomic numbers.
// What a scrape can read for itself (memory) is read then.
class WorkerMetrics final : public JobObserver {
 public:
  // `pool` is empty without a server. Borrows `comm`, whose calls it counts.
  WorkerMetrics(const Communicator& comm, const std::string& pool, const std::string& backend);

  // What to serve. Any thread collects, at any time, also while the calls below run.
  const std::vector<std::shared_ptr<prometheus::Collectable>>& collectables() const { return collectables_; }

  void OnStart(int64_t first_step, int64_t total_steps) override;
  void OnGoBack(int64_t step) override;
  void OnStep(const shardmax::v1::StepMetrics& metrics, const StepCost& cost) override;
  void OnStepFailed(const absl::Status& status) override;
  void OnCheckpoint(int64_t step, double seconds, int64_t bytes) override;

  // No job runs. May be called again and again.
  void OnIdle();

 private:
  struct Operation {
    CommStats::Counter CommStats::*stats;
    prometheus::Counter* calls;
    prometheus::Counter* bytes;
    prometheus::Counter* seconds;
  };

  prometheus::Counter& AddCounter(const std::string& name, const std::string& help,
                                  const prometheus::Labels& labels = {});
  prometheus::Gauge& AddGauge(const std::string& name, const std::string& help, const prometheus::Labels& labels = {});
  prometheus::Histogram& AddHistogram(const std::string& name, const std::string& help,
                                      const std::vector<double>& buckets);
  void AddOperation(const std::string& name, CommStats::Counter CommStats::*stats);
  void CountCollectives();
  // Adds what `now` has beyond `counted`, which becomes equal to it.
  void CountSince(const CommStats& now, CommStats& counted);

  const Communicator& comm_;
  const prometheus::Labels labels_;  // Of every metric.
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  std::vector<std::shared_ptr<prometheus::Collectable>> collectables_;

  prometheus::Gauge& job_running_;
  prometheus::Gauge& step_;
  prometheus::Gauge& total_steps_;
  prometheus::Counter& steps_total_;
  prometheus::Counter& samples_total_;
  prometheus::Gauge& loss_;
  prometheus::Gauge& label_cosine_;
  prometheus::Gauge& support_vector_ratio_;
  prometheus::Gauge& support_vector_recall_;
  prometheus::Gauge& learning_rate_;
  prometheus::Counter& nonfinite_losses_total_;
  prometheus::Histogram& step_seconds_;
  std::array<prometheus::Counter*, 6> phase_seconds_total_;  // In the order of PhaseSeconds.
  std::vector<Operation> operations_;
  CommStats counted_;                  // Of comm_.
  CommStats counted_between_devices_;  // Of the communicator that a job on devices has.
  prometheus::Counter& checkpoints_total_;
  prometheus::Histogram& checkpoint_seconds_;
  prometheus::Gauge& checkpoint_bytes_;
  prometheus::Gauge& checkpoint_timestamp_seconds_;
};

}  // namespace shardmax
