// Jobs and their log lines on disk: the only state of the server.
//
// Changes go into a transaction that begins by itself; they are durable once Commit() returns, and undone by
// Rollback(). Reads see them at once. Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/database.h"
#include "server/job_state.h"
#include "shardmax/v1/control.pb.h"

namespace shardmax {

struct JobFilter {
  std::vector<shardmax::v1::JobState> states;  // Empty: all.
  std::string name;                            // Empty: all.
  std::string pool;                            // Empty: all.
};

class JobStore {
 public:
  // Opens STATE_DIR/shardmax.db, migrating it. `newest_lines` log lines are kept of each job.
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(const std::string& path, int64_t newest_lines = 10'000);

  // Gives the job its sequence and id (name-sequence) and `jobs_folder`/id, and adds it. AlreadyExists: the owner has
  // used its submit_key before.
  absl::Status Add(JobRecord& record, const std::string& jobs_folder);

  // Writes all that may change: everything but sequence, id, name, owner, folder, spec, submitted and key.
  absl::Status Update(const JobRecord& record);

  // Also its log lines. No error if there is none.
  absl::Status Remove(const JobRecord& record);

  // By id, or by name the newest. NotFound naming `job`.
  absl::StatusOr<JobRecord> Find(const std::string& job);
  absl::StatusOr<std::optional<JobRecord>> FindSubmit(const std::string& owner, const std::string& submit_key);
  absl::StatusOr<std::vector<JobRecord>> InState(shardmax::v1::JobState state);

  // Newest first, without specs: at most `limit` of those with a sequence below `before`.
  absl::StatusOr<std::vector<JobRecord>> List(const JobFilter& filter, int64_t before, int32_t limit);

  // The number of jobs in each state, with zeros.
  absl::StatusOr<std::map<shardmax::v1::JobState, int64_t>> CountByState();

  // Gives the line its sequence and adds it. `worker_number`: WorkerLog.number, or 0 for lines of the server.
  absl::Status AddLine(const JobRecord& record, shardmax::v1::LogLine& line, int64_t worker_number);
  // The greatest worker_number of an attempt, 0 if none.
  absl::StatusOr<int64_t> LastWorkerLine(const JobRecord& record, int32_t attempt);
  // Oldest first.
  absl::StatusOr<std::vector<shardmax::v1::LogLine>> Lines(int64_t job_sequence, int64_t after, int32_t limit);

  // OK without changes. After an error the changes are undone.
  absl::Status Commit();
  void Rollback();

  Database& database() { return database_; }

 private:
  JobStore(Database database, int64_t newest_lines) : database_(std::move(database)), newest_lines_(newest_lines) {}
  absl::Status Begin();

  Database database_;
  int64_t newest_lines_;
  bool in_transaction_ = false;
};

}  // namespace shardmax
