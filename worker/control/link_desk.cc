#include "worker/control/link_desk.h"

#include <algorithm>

#include "worker/job_events.h"

namespace shardmax {

std::optional<v1::Assignment> LinkDesk::AwaitAssignment(std::chrono::milliseconds wait) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, wait, [&] { return assignment_.has_value() || !failure_.ok(); });
  return std::exchange(assignment_, std::nullopt);
}

absl::Status LinkDesk::failure() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

uint32_t LinkDesk::TakeRequests() {
  std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(requests_, abandoned_ ? kRequestAbandon : 0);
}

bool LinkDesk::stop_requested() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return stop_requested_;
}

bool LinkDesk::abandoned() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return abandoned_;
}

template <typename Change>
void LinkDesk::ChangeOutbox(const Change& change) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto before = outbox_.NextTime();
  change();
  // A step that only makes unsent progress newer wakes nobody.
  if (outbox_.NextTime() != before) changed_.notify_all();
}

void LinkDesk::SetTotalSteps(int32_t total_steps) {
  ChangeOutbox([&] { outbox_.SetTotalSteps(total_steps); });
}

void LinkDesk::SetPairs(int64_t done, int64_t total) {
  ChangeOutbox([&] { outbox_.SetPairs(done, total); });
}

void LinkDesk::SetProgress(const v1::StepMetrics& metrics) {
  ChangeOutbox([&] { outbox_.SetProgress(metrics); });
}

void LinkDesk::SetCheckpoint(int32_t step, int64_t bytes, double seconds) {
  ChangeOutbox([&] { outbox_.SetCheckpoint(step, bytes, seconds); });
}

void LinkDesk::AddLog(const std::string& level, const std::string& text, std::chrono::system_clock::time_point time) {
  ChangeOutbox([&] { outbox_.AddLog(level, text, time); });
}

void LinkDesk::End(v1::JobEnded::Outcome outcome, const std::string& reason, bool leaving) {
  ChangeOutbox([&] {
    outbox_.End(outcome, reason, leaving);
    requests_ = 0;
    stop_requested_ = false;
    abandoned_ = false;
  });
}

bool LinkDesk::AwaitEndAcknowledged(std::chrono::milliseconds wait) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, wait, [&] { return !outbox_.has_job() || outbox_.running(); });
}

std::optional<v1::RunningJob> LinkDesk::Rewind() {
  std::lock_guard<std::mutex> lock(mutex_);
  outbox_.Rewind();
  return outbox_.ForHello();
}

void LinkDesk::Accept(const v1::Assignment& assignment) {
  // The server gives a pool no second job, but may repeat the one that it does not know to have arrived.
  if (outbox_.has_job()) return;
  outbox_.Begin(assignment.job(), assignment.attempt());
  assignment_ = assignment;
  requests_ = 0;
  stop_requested_ = false;
  abandoned_ = false;
}

void LinkDesk::Abandon(const v1::AbandonJob& abandon) {
  // The end of one that has ended is on its way: that is what the server waits for.
  if (!outbox_.running() || !outbox_.Holds(abandon.job(), abandon.attempt())) return;
  abandoned_ = true;
  requests_ |= kRequestAbandon;
}

void LinkDesk::Handle(const v1::ServerMessage& message) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto is_running = [&](const auto& request) {
    return outbox_.running() && outbox_.Holds(request.job(), request.attempt());
  };
  switch (message.kind_case()) {
    case v1::ServerMessage::kAssignment:
      Accept(message.assignment());
      break;
    case v1::ServerMessage::kStop:
      if (!is_running(message.stop())) break;
      stop_requested_ = true;
      requests_ |= kRequestStop;
      break;
    case v1::ServerMessage::kCheckpoint:
      if (is_running(message.checkpoint())) requests_ |= kRequestCheckpoint;
      break;
    case v1::ServerMessage::kEndedAck:
      outbox_.OnEndedAck(message.ended_ack().job(), message.ended_ack().attempt());
      break;
    case v1::ServerMessage::kAbandon:
      Abandon(message.abandon());
      break;
    case v1::ServerMessage::kLogAck:
      outbox_.OnLogAck(message.log_ack());
      break;
    case v1::ServerMessage::kWelcome:
    case v1::ServerMessage::KIND_NOT_SET:
      break;
  }
  changed_.notify_all();
}

std::optional<v1::PoolMessage> LinkDesk::AwaitMessage(Clock::time_point deadline,
                                                      const std::atomic<bool>& interrupted) {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    const Clock::time_point now = Clock::now();
    if (interrupted) return std::nullopt;
    if (auto message = outbox_.Next(now); message.has_value()) return message;
    if (now >= deadline) return std::nullopt;
    changed_.wait_until(lock, std::min(deadline, outbox_.NextTime().value_or(deadline)));
  }
}

bool LinkDesk::AwaitFlag(Clock::time_point deadline, const std::atomic<bool>& condition) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_until(lock, deadline, [&] { return condition.load(); });
}

void LinkDesk::Wake() {
  std::lock_guard<std::mutex> lock(mutex_);
  changed_.notify_all();
}

void LinkDesk::Fail(const absl::Status& status) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (failure_.ok()) failure_ = status;
  changed_.notify_all();
}

}  // namespace shardmax
