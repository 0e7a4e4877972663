#include "server/schema.h"

#include <fmt/format.h>

#include <iterator>

#include "worker/base/status.h"

namespace shardmax {
namespace {

// Entry i brings a file from version i to i + 1. An entry that was released is never changed.
constexpr const char* kMigrations[] = {
    // 1: jobs. AUTOINCREMENT: the number of a deleted job is never given again.
    R"sql(
CREATE TABLE jobs (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  owner TEXT NOT NULL,
  state INTEGER NOT NULL,
  reason TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  restarts INTEGER NOT NULL,
  pool TEXT NOT NULL,
  session TEXT NOT NULL,
  ranks INTEGER NOT NULL,
  submitted_us INTEGER NOT NULL,
  pending_since_us INTEGER NOT NULL,
  started_us INTEGER NOT NULL,
  finished_us INTEGER NOT NULL,
  progress BLOB NOT NULL,
  total_steps INTEGER NOT NULL,
  checkpoint_step INTEGER NOT NULL,
  stop_requested INTEGER NOT NULL,
  folder TEXT NOT NULL,
  submit_key TEXT NOT NULL,
  submit_digest TEXT NOT NULL,
  spec BLOB NOT NULL
) STRICT;
CREATE INDEX jobs_by_name ON jobs (name, sequence);
CREATE INDEX jobs_by_state ON jobs (state, sequence);
CREATE UNIQUE INDEX jobs_by_submit_key ON jobs (owner, submit_key) WHERE submit_key != '';
)sql",
    // 2: what the server and the workers said.
    R"sql(
CREATE TABLE log_lines (
  job INTEGER NOT NULL REFERENCES jobs (sequence) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  time_us INTEGER NOT NULL,
  level TEXT NOT NULL,
  source TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  worker_number INTEGER NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX log_lines_of_workers ON log_lines (job, attempt, worker_number) WHERE worker_number > 0;
)sql",
};

absl::StatusOr<int64_t> VersionOf(Database& database) {
  Query query(database, "PRAGMA user_version");
  if (!query.Next()) return query.status().ok() ? absl::DataLossError("no user_version") : query.status();
  return query.Int(0);
}

absl::Status RunMigrations(Database& database, int64_t from, int32_t to) {
  for (int64_t version = from; version < to; ++version) {
    SHARDMAX_RETURN_IF_ERROR(
        Annotate(database.Execute(kMigrations[version]), fmt::format("migration to schema {}", version + 1)));
  }
  return database.Execute(fmt::format("PRAGMA user_version = {}", to));
}

}  // namespace

int32_t NewestSchemaVersion() {
  return static_cast<int32_t>(std::size(kMigrations));
}

absl::Status Migrate(Database& database, int32_t version) {
  SHARDMAX_ASSIGN_OR_RETURN(const int64_t found, VersionOf(database));
  if (found > version) {
    return Error(absl::StatusCode::kFailedPrecondition,
                 "{}: has schema {}, and this server knows schemas up to {}: run the newer server that wrote it",
                 database.path(), found, version);
  }
  if (found == version) return absl::OkStatus();
  SHARDMAX_RETURN_IF_ERROR(database.Execute("BEGIN IMMEDIATE"));
  absl::Status status = RunMigrations(database, found, version);
  if (status.ok()) status = database.Execute("COMMIT");
  if (!status.ok()) database.Execute("ROLLBACK").IgnoreError();
  return status;
}

}  // namespace shardmax
