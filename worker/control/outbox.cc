#include "worker/control/outbox.h"

#include <google/protobuf/util/time_util.h>

#include "worker/base/status.h"
#include "worker/control/wire_text.h"

namespace shardmax {
namespace {

constexpr size_t kMaxTextBytes = 4096;  // Of control.proto.

google::protobuf::Timestamp TimestampOf(std::chrono::system_clock::time_point time) {
  const auto since_epoch = std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch());
  return google::protobuf::util::TimeUtil::NanosecondsToTimestamp(since_epoch.count());
}

}  // namespace

void Outbox::Begin(const std::string& job, int32_t attempt) {
  v1::RunningJob running;
  running.set_job(job);
  running.set_attempt(attempt);
  job_ = running;
}

bool Outbox::Holds(const std::string& job, int32_t attempt) const {
  return job_.has_value() && job_->job() == job && job_->attempt() == attempt;
}

v1::Progress& Outbox::NewProgress() {
  progress_.emplace();
  progress_->set_job(job_->job());
  progress_->set_attempt(job_->attempt());
  progress_sent_ = false;
  return *progress_;
}

void Outbox::SetTotalSteps(int32_t total_steps) {
  if (running()) NewProgress().set_total_steps(total_steps);
}

void Outbox::SetPairs(int64_t done, int64_t total) {
  if (!running()) return;
  v1::PairProgress& pairs = *NewProgress().mutable_pairs();
  pairs.set_done(done);
  pairs.set_total(total);
}

void Outbox::SetProgress(const v1::StepMetrics& metrics) {
  if (!running() || !progress_.has_value()) return;
  job_->set_step(metrics.step());
  *progress_->mutable_metrics() = metrics;
  progress_sent_ = false;
}

void Outbox::SetCheckpoint(int32_t step, int64_t bytes, double seconds) {
  if (!running()) return;
  v1::CheckpointWritten checkpoint;
  checkpoint.set_job(job_->job());
  checkpoint.set_attempt(job_->attempt());
  checkpoint.set_step(step);
  checkpoint.set_bytes(bytes);
  checkpoint.set_seconds(seconds);
  checkpoint_ = checkpoint;
  checkpoint_sent_ = false;
}

void Outbox::AddLog(const std::string& level, const std::string& text, std::chrono::system_clock::time_point time) {
  if (!running()) return;
  v1::WorkerLog line;
  line.set_job(job_->job());
  line.set_attempt(job_->attempt());
  line.set_number(++last_log_number_);
  *line.mutable_time() = TimestampOf(time);
  line.set_level(level);
  line.set_text(WireText(text, kMaxTextBytes));
  log_.push_back(line);
  if (log_.size() > log_capacity_) MakeRoom();
}

void Outbox::MakeRoom() {
  // The line that takes the place of the missing ones has the number of the last of them: a server that has that one
  // needs none of them.
  if (dropped_logs_ == 0) dropped_logs_ = 1;
  log_.pop_front();
  ++dropped_logs_;
  v1::WorkerLog& notice = log_.front();
  notice.set_level("warning");
  notice.set_text(fmt::format("{} lines are missing here: the server could not be reached and there were more than {}",
                              dropped_logs_, log_capacity_));
  if (log_sent_ > 0) --log_sent_;
}

void Outbox::End(v1::JobEnded::Outcome outcome, const std::string& reason, bool leaving) {
  if (!running()) return;
  v1::JobEnded ended;
  ended.set_job(job_->job());
  ended.set_attempt(job_->attempt());
  ended.set_outcome(outcome);
  ended.set_reason(WireText(reason, kMaxTextBytes));
  ended.set_leaving(leaving);
  ended_ = ended;
  ended_sent_ = false;
}

void Outbox::OnLogAck(const v1::LogAck& ack) {
  if (!Holds(ack.job(), ack.attempt())) return;
  while (!log_.empty() && log_.front().number() <= ack.number()) {
    log_.pop_front();
    dropped_logs_ = 0;
    if (log_sent_ > 0) --log_sent_;
  }
}

void Outbox::OnEndedAck(const std::string& job, int32_t attempt) {
  if (!ended_.has_value() || !Holds(job, attempt)) return;
  *this = Outbox(log_capacity_, progress_interval_);
}

void Outbox::Rewind() {
  progress_sent_ = false;
  checkpoint_sent_ = false;
  log_sent_ = 0;
  ended_sent_ = false;
  next_progress_ = {};
}

std::optional<v1::PoolMessage> Outbox::Next(Clock::time_point now) {
  v1::PoolMessage message;
  if (log_sent_ < log_.size()) {
    *message.mutable_log() = log_[log_sent_++];
    return message;
  }
  const bool may_wait = !ended_.has_value();
  if (progress_.has_value() && !progress_sent_ && (!may_wait || now >= next_progress_)) {
    *message.mutable_progress() = *progress_;
    progress_sent_ = true;
    next_progress_ = now + progress_interval_;
    return message;
  }
  if (checkpoint_.has_value() && !checkpoint_sent_) {
    *message.mutable_checkpoint() = *checkpoint_;
    checkpoint_sent_ = true;
    return message;
  }
  if (ended_.has_value() && !ended_sent_) {
    *message.mutable_ended() = *ended_;
    ended_sent_ = true;
    return message;
  }
  return std::nullopt;
}

std::optional<Outbox::Clock::time_point> Outbox::NextTime() const {
  if (log_sent_ < log_.size()) return Clock::time_point();
  if (checkpoint_.has_value() && !checkpoint_sent_) return Clock::time_point();
  if (ended_.has_value() && !ended_sent_) return Clock::time_point();
  if (progress_.has_value() && !progress_sent_) return next_progress_;
  return std::nullopt;
}

}  // namespace shardmax
