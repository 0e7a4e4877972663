// All jobs: those that wait in queue order, those that run with their newest progress, the others on disk only.
//
// Progress comes several times a second and is written at most once a second; everything else is written at once. Not
// thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/job_store.h"
#include "server/moment.h"
#include "server/scheduler.h"

namespace shardmax {

class JobTable {
 public:
  explicit JobTable(std::unique_ptr<JobStore> store) : store_(std::move(store)) {}

  // Reads the queue and the running jobs, forgetting what is in memory. Call first, and after a Rollback().
  absl::Status Load();

  // Adds a pending job; see JobStore::Add.
  absl::Status Add(JobRecord& record, const std::string& jobs_folder);
  // Writes a job after a change of its state or wishes.
  absl::Status Save(const JobRecord& record);
  absl::Status Remove(const JobRecord& record) { return store_->Remove(record); }

  // By id, or by name the newest.
  absl::StatusOr<JobRecord> Find(const std::string& job);
  // Of one that runs, without a copy; null if it does not.
  JobRecord* Running(const std::string& id);
  absl::StatusOr<std::vector<JobRecord>> List(const JobFilter& filter, int64_t before, int32_t limit);
  const JobQueue& queue() const { return queue_; }
  const std::unordered_map<std::string, JobRecord>& running() const { return running_; }

  // What a pool says of a job that runs there. False if it runs no more.
  bool SetProgress(const std::string& id, const shardmax::v1::Progress& progress);
  bool SetCheckpoint(const std::string& id, int32_t step);
  // Writes progress that waits, if the newest write is a second ago.
  absl::Status FlushProgress(const Moment& now);
  absl::Status FlushAllProgress();

  JobStore& store() { return *store_; }

 private:
  std::unique_ptr<JobStore> store_;
  JobQueue queue_;
  std::unordered_map<std::string, JobRecord> running_;
  std::unordered_set<std::string> unwritten_;  // Ids of running jobs with progress that is not on disk.
  std::chrono::steady_clock::time_point last_flush_;
};

}  // namespace shardmax
