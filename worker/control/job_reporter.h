// Tells the server about the job that runs.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "worker/control/link_desk.h"
#include "worker/job_events.h"

namespace spdlog::sinks {
class sink;
}  // namespace spdlog::sinks

namespace shardmax {

// Passes progress and checkpoints on. Rank 0 has one; `desk` outlives it.
//
// A job that goes on from a checkpoint says so with the last line of metrics.jsonl in `folder`: the attempt before may
// not have been able to tell the server, and this one may have no step left to do.
class JobReporter final : public JobObserver {
 public:
  JobReporter(LinkDesk& desk, std::string folder) : desk_(desk), folder_(std::move(folder)) {}

  void OnStart(int64_t first_step, int64_t total_steps) override;
  void OnGoBack(int64_t step) override;
  void OnStep(const shardmax::v1::StepMetrics& metrics, const StepCost& cost) override;
  void OnCheckpoint(int64_t step, double seconds, int64_t bytes) override;
  void OnPairs(int64_t done, int64_t total) override;

 private:
  LinkDesk& desk_;
  const std::string folder_;
};

// Takes the lines of a job's log to `desk`, which outlives it.
std::shared_ptr<spdlog::sinks::sink> NewDeskSink(LinkDesk& desk);

}  // namespace shardmax
