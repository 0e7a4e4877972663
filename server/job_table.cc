#include "server/job_table.h"

#include <algorithm>

#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr std::chrono::milliseconds kProgressInterval{1000};

}  // namespace

absl::Status JobTable::Load() {
  SHARDMAX_ASSIGN_OR_RETURN(const std::vector<JobRecord> pending, store_->InState(v1::PENDING));
  SHARDMAX_ASSIGN_OR_RETURN(std::vector<JobRecord> running, store_->InState(v1::RUNNING));
  queue_.Clear();
  running_.clear();
  unwritten_.clear();
  for (const JobRecord& record : pending) queue_.Add(ToQueued(record));
  for (JobRecord& record : running) {
    std::string id = record.job.id();
    running_.emplace(std::move(id), std::move(record));
  }
  return absl::OkStatus();
}

absl::Status JobTable::Add(JobRecord& record, const std::string& jobs_folder) {
  SHARDMAX_RETURN_IF_ERROR(store_->Add(record, jobs_folder));
  queue_.Add(ToQueued(record));
  return absl::OkStatus();
}

absl::Status JobTable::Save(const JobRecord& record) {
  SHARDMAX_RETURN_IF_ERROR(store_->Update(record));
  const std::string id = record.job.id();
  unwritten_.erase(id);
  if (record.job.state() == v1::RUNNING) {
    queue_.Remove(id);
    running_.insert_or_assign(id, record);
    return absl::OkStatus();
  }
  if (record.job.state() == v1::PENDING) {
    queue_.Add(ToQueued(record));
  } else {
    queue_.Remove(id);
  }
  running_.erase(id);
  return absl::OkStatus();
}

absl::StatusOr<JobRecord> JobTable::Find(const std::string& job) {
  if (const auto running = running_.find(job); running != running_.end()) return running->second;
  SHARDMAX_ASSIGN_OR_RETURN(JobRecord record, store_->Find(job));
  if (const JobRecord* running = Running(record.job.id())) return *running;
  return record;
}

JobRecord* JobTable::Running(const std::string& id) {
  const auto running = running_.find(id);
  return running == running_.end() ? nullptr : &running->second;
}

absl::StatusOr<std::vector<JobRecord>> JobTable::List(const JobFilter& filter, int64_t before, int32_t limit) {
  SHARDMAX_ASSIGN_OR_RETURN(std::vector<JobRecord> records, store_->List(filter, before, limit));
  for (JobRecord& record : records) {
    const JobRecord* running = Running(record.job.id());
    if (running == nullptr) continue;
    if (running->job.has_progress()) *record.job.mutable_progress() = running->job.progress();
    if (running->job.has_pairs()) *record.job.mutable_pairs() = running->job.pairs();
    record.job.set_total_steps(running->job.total_steps());
    record.job.set_checkpoint_step(running->job.checkpoint_step());
  }
  return records;
}

bool JobTable::SetProgress(const std::string& id, const v1::Progress& progress) {
  JobRecord* record = Running(id);
  if (record == nullptr) return false;
  if (progress.total_steps() > 0) record->job.set_total_steps(progress.total_steps());
  if (progress.has_metrics()) *record->job.mutable_progress() = progress.metrics();
  if (progress.has_pairs()) *record->job.mutable_pairs() = progress.pairs();
  unwritten_.insert(id);
  return true;
}

bool JobTable::SetCheckpoint(const std::string& id, int32_t step) {
  JobRecord* record = Running(id);
  if (record == nullptr) return false;
  record->job.set_checkpoint_step(std::max(step, record->job.checkpoint_step()));
  unwritten_.insert(id);
  return true;
}

absl::Status JobTable::FlushProgress(const Moment& now) {
  if (unwritten_.empty() || now.steady - last_flush_ < kProgressInterval) return absl::OkStatus();
  last_flush_ = now.steady;
  return FlushAllProgress();
}

absl::Status JobTable::FlushAllProgress() {
  for (const std::string& id : unwritten_) {
    if (const JobRecord* record = Running(id)) SHARDMAX_RETURN_IF_ERROR(store_->Update(*record));
  }
  unwritten_.clear();
  return absl::OkStatus();
}

}  // namespace shardmax
