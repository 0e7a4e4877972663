// What a pool has to tell the server about its job, whatever becomes of the connection.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "shardmax/v1/checkpoint.pb.h"
#include "shardmax/v1/control.pb.h"

namespace shardmax {

// Holds one job at a time, from its assignment until the server acknowledged its end. Everything that was not
// acknowledged is sent again in the next connection; of progress and checkpoints only the newest counts.
//
// Pure: does no I/O and reads no clock. Not thread-safe.
class Outbox {
 public:
  using Clock = std::chrono::steady_clock;

  // Keeps at most `log_capacity` (at least 2) lines that were not acknowledged: of more, the oldest make room for one
  // line that says how many are missing. Two messages of progress are `progress_interval` apart, but the last one.
  Outbox(size_t log_capacity, std::chrono::milliseconds progress_interval)
      : log_capacity_(log_capacity), progress_interval_(progress_interval) {}

  // The job that the server gave this pool. Requires that there is none.
  void Begin(const std::string& job, int32_t attempt);
  // Whether there is a job: running, or ended but not acknowledged.
  bool has_job() const { return job_.has_value(); }
  // Whether it runs.
  bool running() const { return has_job() && !ended_.has_value(); }
  bool Holds(const std::string& job, int32_t attempt) const;
  // As PoolHello wants it.
  std::optional<shardmax::v1::RunningJob> ForHello() const { return job_; }

  // What the running job says; ignored if none runs.
  void SetTotalSteps(int32_t total_steps);
  void SetProgress(const shardmax::v1::StepMetrics& metrics);
  void SetPairs(int64_t done, int64_t total);
  void SetCheckpoint(int32_t step, int64_t bytes, double seconds);
  void AddLog(const std::string& level, const std::string& text, std::chrono::system_clock::time_point time);
  void End(shardmax::v1::JobEnded::Outcome outcome, const std::string& reason, bool leaving = false);

  // What the server has. Both ignore other jobs and attempts.
  void OnLogAck(const shardmax::v1::LogAck& ack);
  // Forgets the job.
  void OnEndedAck(const std::string& job, int32_t attempt);

  // A new connection: nothing has been sent in it.
  void Rewind();
  // The next message to send at `now`, which counts as sent from then on; none if there is nothing to send. Log lines
  // go before the progress that follows them, and the end goes last.
  std::optional<shardmax::v1::PoolMessage> Next(Clock::time_point now);
  // When Next() will have something if nothing is added; none if never.
  std::optional<Clock::time_point> NextTime() const;

 private:
  void MakeRoom();
  shardmax::v1::Progress& NewProgress();

  size_t log_capacity_;
  std::chrono::milliseconds progress_interval_;

  std::optional<shardmax::v1::RunningJob> job_;
  std::optional<shardmax::v1::Progress> progress_;
  bool progress_sent_ = false;
  std::optional<shardmax::v1::CheckpointWritten> checkpoint_;
  bool checkpoint_sent_ = false;
  std::deque<shardmax::v1::WorkerLog> log_;  // Not acknowledged.
  size_t log_sent_ = 0;                      // How many of log_ were sent.
  int64_t last_log_number_ = 0;
  int64_t dropped_logs_ = 0;  // What the first line of log_ stands for; 0: for itself.
  std::optional<shardmax::v1::JobEnded> ended_;
  bool ended_sent_ = false;
  Clock::time_point next_progress_;
};

}  // namespace shardmax
