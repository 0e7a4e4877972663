// How far a job is, on stderr.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "worker/job_events.h"
#include "worker/options.h"

namespace spdlog::sinks {
class sink;
}  // namespace spdlog::sinks

namespace shardmax {

// A bar that is drawn over, or a line now and then, with loss, samples/s, support-vector ratio and time to go.
// Rank 0 has one; not thread-safe.
class Progress final : public JobObserver {
 public:
  // kAuto: a bar if stderr is a terminal, else lines.
  explicit Progress(ProgressStyle style);
  ~Progress() override;
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void OnStart(int64_t first_step, int64_t total_steps) override;
  void OnGoBack(int64_t step) override;
  void OnStep(const shardmax::v1::StepMetrics& metrics, const StepCost& cost) override;
  void OnCheckpoint(int64_t /*step*/, double /*seconds*/, int64_t /*bytes*/) override {}
  void OnPairs(int64_t done, int64_t total) override;

  // Makes room for other output: ends the bar's line.
  void Break();

  // Where a log's lines go to stderr, each on a line of its own. Borrows this object; log from its thread only.
  std::shared_ptr<spdlog::sinks::sink> NewLogSink();

 private:
  using Clock = std::chrono::steady_clock;

  // Whether it is time to show something; if so sets the time of the next.
  bool Due(bool last);
  // Draws the bar with `text` behind it, or prints the text as a line.
  void Show(int64_t done, int64_t total, const std::string& text);

  ProgressStyle style_;
  int64_t first_step_ = 0;
  int64_t total_steps_ = 0;
  bool counts_pairs_ = false;
  Clock::time_point start_;
  Clock::time_point next_;
  bool in_line_ = false;
};

}  // namespace shardmax
