// How far a job is, on stderr.
#pragma once

#include <chrono>
#include <cstdint>

#include "shardmax/v1/checkpoint.pb.h"
#include "worker/options.h"

namespace shardmax {

// A bar that is drawn over, or a line now and then, with loss, samples/s, support-vector ratio and time to go.
// Rank 0 has one; not thread-safe.
class Progress {
 public:
  // kAuto: a bar if stderr is a terminal, else lines.
  Progress(ProgressStyle style, int64_t first_step, int64_t total_steps);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Show(const shardmax::v1::StepMetrics& metrics);

  // Makes room for other output: ends the bar's line.
  void Break();

 private:
  using Clock = std::chrono::steady_clock;

  ProgressStyle style_;
  int64_t first_step_;
  int64_t total_steps_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point next_ = start_;
  bool in_line_ = false;
};

}  // namespace shardmax
