// Tells the server about the job that runs.
#pragma once

#include <memory>

#include "worker/control/link_desk.h"
#include "worker/job_events.h"

namespace spdlog::sinks {
class sink;
}  // namespace spdlog::sinks

namespace shardmax {

// Passes progress and checkpoints on. Rank 0 has one; `desk` outlives it.
class JobReporter final : public JobObserver {
 public:
  explicit JobReporter(LinkDesk& desk) : desk_(desk) {}

  void OnStart(int64_t first_step, int64_t total_steps) override;
  void OnStep(const shardmax::v1::StepMetrics& metrics, const StepCost& cost) override;
  void OnCheckpoint(int64_t step, double seconds, int64_t bytes) override;

 private:
  LinkDesk& desk_;
};

// Takes the lines of a job's log to `desk`, which outlives it.
std::shared_ptr<spdlog::sinks::sink> NewDeskSink(LinkDesk& desk);

}  // namespace shardmax
