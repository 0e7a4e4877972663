// The desk between the thread that trains and the threads that talk to the server.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "shardmax/v1/control.pb.h"
#include "worker/control/outbox.h"

namespace shardmax {

struct DeskOptions {
  size_t log_capacity = 10'000;
  std::chrono::milliseconds progress_interval{250};
};

// What the server wants of rank 0, and what rank 0 wants to tell the server. Thread-safe; knows no network.
class LinkDesk {
 public:
  using Clock = std::chrono::steady_clock;

  explicit LinkDesk(const DeskOptions& options = {}) : outbox_(options.log_capacity, options.progress_interval) {}

  // For the pool. Jobs come one at a time: AwaitAssignment, then the calls that report, then End.

  // The next job, if one comes within `wait`; returns at once after Fail(). The server counts it as running from then
  // on.
  std::optional<shardmax::v1::Assignment> AwaitAssignment(std::chrono::milliseconds wait);
  // Why the pool has to go; OK if it need not.
  absl::Status failure() const;

  // Bits of worker/job_events.h that the server asked for since the last call. To abandon a job is asked for ever.
  uint32_t TakeRequests();
  bool stop_requested() const;  // Whether the server asked the job to stop.
  bool abandoned() const;       // Whether the server has taken the job away.

  void SetTotalSteps(int32_t total_steps);
  void SetProgress(const shardmax::v1::StepMetrics& metrics);
  void SetPairs(int64_t done, int64_t total);
  void SetCheckpoint(int32_t step, int64_t bytes, double seconds);
  void AddLog(const std::string& level, const std::string& text, std::chrono::system_clock::time_point time);
  void End(shardmax::v1::JobEnded::Outcome outcome, const std::string& reason, bool leaving = false);
  // Whether the server knows, within `wait`, that the job has ended.
  bool AwaitEndAcknowledged(std::chrono::milliseconds wait);

  // For the connection.

  // A new connection: everything unacknowledged is to be sent again. The job for its hello.
  std::optional<shardmax::v1::RunningJob> Rewind();
  void Handle(const shardmax::v1::ServerMessage& message);
  // The next message to send: waits until there is one, `deadline`, or Wake() when `interrupted`.
  std::optional<shardmax::v1::PoolMessage> AwaitMessage(Clock::time_point deadline,
                                                        const std::atomic<bool>& interrupted);
  // Waits until `condition`, which Wake() has looked at, or `deadline`.
  bool AwaitFlag(Clock::time_point deadline, const std::atomic<bool>& condition);
  void Wake();
  // The pool has to go. The first failure stays.
  void Fail(const absl::Status& status);

 private:
  // Changes the outbox, and wakes who waits for messages if they wait for something else now.
  template <typename Change>
  void ChangeOutbox(const Change& change);
  void Accept(const shardmax::v1::Assignment& assignment);
  void Abandon(const shardmax::v1::AbandonJob& abandon);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Outbox outbox_;
  std::optional<shardmax::v1::Assignment> assignment_;  // Not yet taken.
  uint32_t requests_ = 0;
  bool stop_requested_ = false;
  bool abandoned_ = false;
  absl::Status failure_;
};

}  // namespace shardmax
