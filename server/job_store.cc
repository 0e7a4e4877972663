#include "server/job_store.h"

#include <fmt/format.h>

#include <utility>

#include "server/moment.h"
#include "server/schema.h"
#include "worker/base/status.h"
#include "worker/data/quote.h"

namespace shardmax {
namespace {

using v1::Job;
using v1::JobState;

#define SHARDMAX_JOB_COLUMNS                                                                                    \
  "sequence, id, name, owner, state, reason, attempt, restarts, pool, session, ranks, submitted_us, "           \
  "pending_since_us, started_us, finished_us, progress, total_steps, checkpoint_step, stop_requested, folder, " \
  "submit_key, submit_digest"

// A row of the columns above, and of `spec` behind them if `with_spec`.
absl::StatusOr<JobRecord> ReadRow(const Query& row, bool with_spec) {
  JobRecord record;
  Job& job = record.job;
  record.sequence = row.Int(0);
  job.set_id(row.Text(1));
  job.set_name(row.Text(2));
  job.set_owner(row.Text(3));
  job.set_state(static_cast<JobState>(row.Int(4)));
  job.set_reason(row.Text(5));
  job.set_attempt(static_cast<int32_t>(row.Int(6)));
  job.set_restarts(static_cast<int32_t>(row.Int(7)));
  job.set_pool(row.Text(8));
  record.session = row.Text(9);
  job.set_ranks(static_cast<int32_t>(row.Int(10)));
  *job.mutable_submitted() = ToTimestamp(row.Int(11));
  record.pending_since_us = row.Int(12);
  if (row.Int(13) != 0) *job.mutable_started() = ToTimestamp(row.Int(13));
  if (row.Int(14) != 0) *job.mutable_finished() = ToTimestamp(row.Int(14));
  bool sound = true;
  if (const std::string progress = row.Text(15); !progress.empty()) {
    sound = job.mutable_progress()->ParseFromString(progress);
  }
  job.set_total_steps(static_cast<int32_t>(row.Int(16)));
  job.set_checkpoint_step(static_cast<int32_t>(row.Int(17)));
  job.set_stop_requested(row.Int(18) != 0);
  job.set_folder(row.Text(19));
  record.submit_key = row.Text(20);
  record.submit_digest = row.Text(21);
  if (with_spec) sound = job.mutable_spec()->ParseFromString(row.Text(22)) && sound;
  if (!sound) return Error(absl::StatusCode::kDataLoss, "the database row of job {} is damaged", job.id());
  return record;
}

absl::StatusOr<std::vector<JobRecord>> ReadRows(Query& query, bool with_spec) {
  std::vector<JobRecord> records;
  while (query.Next()) {
    SHARDMAX_ASSIGN_OR_RETURN(JobRecord record, ReadRow(query, with_spec));
    records.push_back(std::move(record));
  }
  SHARDMAX_RETURN_IF_ERROR(query.status());
  return records;
}

absl::StatusOr<std::optional<JobRecord>> ReadFirst(Query& query) {
  SHARDMAX_ASSIGN_OR_RETURN(std::vector<JobRecord> records, ReadRows(query, true));
  if (records.empty()) return std::optional<JobRecord>();
  return std::optional<JobRecord>(std::move(records.front()));
}

int64_t MicrosOrZero(bool has, const google::protobuf::Timestamp& time) {
  return has ? ToUnixMicros(time) : 0;
}

int64_t MaskOf(const std::vector<JobState>& states) {
  if (states.empty()) return ~int64_t{0};
  int64_t mask = 0;
  for (const JobState state : states) mask |= int64_t{1} << state;
  return mask;
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobStore>> JobStore::Open(const std::string& path, int64_t newest_lines) {
  SHARDMAX_ASSIGN_OR_RETURN(Database database, Database::Open(path));
  SHARDMAX_RETURN_IF_ERROR(Migrate(database));
  return std::unique_ptr<JobStore>(new JobStore(std::move(database), newest_lines));
}

absl::Status JobStore::Begin() {
  if (in_transaction_) return absl::OkStatus();
  SHARDMAX_RETURN_IF_ERROR(database_.Execute("BEGIN IMMEDIATE"));
  in_transaction_ = true;
  return absl::OkStatus();
}

absl::Status JobStore::Commit() {
  if (!in_transaction_) return absl::OkStatus();
  const absl::Status status = database_.Execute("COMMIT");
  if (!status.ok()) {
    Rollback();
    return status;
  }
  in_transaction_ = false;
  return absl::OkStatus();
}

void JobStore::Rollback() {
  // Some errors have rolled back already; then this one fails, and nothing is lost.
  if (in_transaction_) database_.Execute("ROLLBACK").IgnoreError();
  in_transaction_ = false;
}

absl::Status JobStore::Add(JobRecord& record, const std::string& jobs_folder) {
  SHARDMAX_RETURN_IF_ERROR(Begin());
  Job& job = record.job;
  {
    // The id is made from the number that the row gets, so the row comes first, under a name that no id can have.
    Query insert(database_,
                 "INSERT INTO jobs (id, name, owner, state, reason, attempt, restarts, pool, session, ranks, "
                 "submitted_us, pending_since_us, started_us, finished_us, progress, total_steps, checkpoint_step, "
                 "stop_requested, folder, submit_key, submit_digest, spec) "
                 "VALUES ('/new', ?, ?, ?, ?, 0, 0, '', '', 0, ?, ?, 0, 0, x'', 0, 0, 0, '', ?, ?, ?)");
    const std::string spec = job.spec().SerializeAsString();
    insert.Bind(job.name(), job.owner(), int64_t{job.state()}, job.reason(), ToUnixMicros(job.submitted()),
                record.pending_since_us, record.submit_key, record.submit_digest, Query::Blob{spec});
    SHARDMAX_RETURN_IF_ERROR(insert.Run());
  }
  record.sequence = database_.LastInsertId();
  job.set_id(fmt::format("{}-{}", job.name(), record.sequence));
  job.set_folder(fmt::format("{}/{}", jobs_folder, job.id()));
  Query name(database_, "UPDATE jobs SET id = ?, folder = ? WHERE sequence = ?");
  name.Bind(job.id(), job.folder(), record.sequence);
  return name.Run();
}

absl::Status JobStore::Update(const JobRecord& record) {
  SHARDMAX_RETURN_IF_ERROR(Begin());
  const Job& job = record.job;
  Query update(database_,
               "UPDATE jobs SET state = ?, reason = ?, attempt = ?, restarts = ?, pool = ?, session = ?, ranks = ?, "
               "pending_since_us = ?, started_us = ?, finished_us = ?, progress = ?, total_steps = ?, "
               "checkpoint_step = ?, stop_requested = ? WHERE sequence = ?");
  const std::string progress = job.has_progress() ? job.progress().SerializeAsString() : "";
  update.Bind(int64_t{job.state()}, job.reason(), int64_t{job.attempt()}, int64_t{job.restarts()}, job.pool(),
              record.session, int64_t{job.ranks()}, record.pending_since_us,
              MicrosOrZero(job.has_started(), job.started()), MicrosOrZero(job.has_finished(), job.finished()),
              Query::Blob{progress}, int64_t{job.total_steps()}, int64_t{job.checkpoint_step()},
              int64_t{job.stop_requested()}, record.sequence);
  return update.Run();
}

absl::Status JobStore::Remove(const JobRecord& record) {
  SHARDMAX_RETURN_IF_ERROR(Begin());
  Query remove(database_, "DELETE FROM jobs WHERE sequence = ?");
  remove.Bind(record.sequence);
  return remove.Run();
}

absl::StatusOr<JobRecord> JobStore::Find(const std::string& job) {
  {
    Query by_id(database_, "SELECT " SHARDMAX_JOB_COLUMNS ", spec FROM jobs WHERE id = ?");
    by_id.Bind(job);
    SHARDMAX_ASSIGN_OR_RETURN(auto found, ReadFirst(by_id));
    if (found) return *std::move(found);
  }
  Query by_name(database_,
                "SELECT " SHARDMAX_JOB_COLUMNS ", spec FROM jobs WHERE name = ? ORDER BY sequence DESC LIMIT 1");
  by_name.Bind(job);
  SHARDMAX_ASSIGN_OR_RETURN(auto found, ReadFirst(by_name));
  if (found) return *std::move(found);
  return Error(absl::StatusCode::kNotFound, "there is no job with the id or name {}", Quoted(job));
}

absl::StatusOr<std::optional<JobRecord>> JobStore::FindSubmit(const std::string& owner, const std::string& submit_key) {
  Query query(database_, "SELECT " SHARDMAX_JOB_COLUMNS
                         ", spec FROM jobs WHERE owner = ? AND submit_key = ? AND submit_key != ''");
  query.Bind(owner, submit_key);
  return ReadFirst(query);
}

absl::StatusOr<std::vector<JobRecord>> JobStore::InState(JobState state) {
  Query query(database_, "SELECT " SHARDMAX_JOB_COLUMNS ", spec FROM jobs WHERE state = ? ORDER BY sequence");
  query.Bind(int64_t{state});
  return ReadRows(query, true);
}

absl::StatusOr<std::vector<JobRecord>> JobStore::List(const JobFilter& filter, int64_t before, int32_t limit) {
  Query query(database_, "SELECT " SHARDMAX_JOB_COLUMNS
                         " FROM jobs WHERE sequence < ?1 AND (?2 >> state) & 1 AND (?3 = '' OR name = ?3) "
                         "AND (?4 = '' OR pool = ?4) ORDER BY sequence DESC LIMIT ?5");
  query.Bind(before, MaskOf(filter.states), filter.name, filter.pool, int64_t{limit});
  return ReadRows(query, false);
}

absl::StatusOr<std::map<JobState, int64_t>> JobStore::CountByState() {
  std::map<JobState, int64_t> counts = {
      {v1::PENDING, 0}, {v1::RUNNING, 0}, {v1::SUCCEEDED, 0}, {v1::FAILED, 0}, {v1::STOPPED, 0}};
  Query query(database_, "SELECT state, COUNT(*) FROM jobs GROUP BY state");
  while (query.Next()) counts[static_cast<JobState>(query.Int(0))] = query.Int(1);
  SHARDMAX_RETURN_IF_ERROR(query.status());
  return counts;
}

absl::Status JobStore::AddLine(const JobRecord& record, v1::LogLine& line, int64_t worker_number) {
  SHARDMAX_RETURN_IF_ERROR(Begin());
  {
    Query last(database_, "SELECT COALESCE(MAX(number), 0) FROM log_lines WHERE job = ?");
    last.Bind(record.sequence);
    last.Next();
    SHARDMAX_RETURN_IF_ERROR(last.status());
    line.set_sequence(last.Int(0) + 1);
  }
  {
    Query insert(database_, "INSERT INTO log_lines VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
    insert.Bind(record.sequence, line.sequence(), ToUnixMicros(line.time()), line.level(), line.source(),
                int64_t{line.attempt()}, worker_number, line.text());
    SHARDMAX_RETURN_IF_ERROR(insert.Run());
  }
  Query trim(database_, "DELETE FROM log_lines WHERE job = ? AND number <= ?");
  trim.Bind(record.sequence, line.sequence() - newest_lines_);
  return trim.Run();
}

absl::StatusOr<int64_t> JobStore::LastWorkerLine(const JobRecord& record, int32_t attempt) {
  Query query(database_,
              "SELECT COALESCE(MAX(worker_number), 0) FROM log_lines "
              "WHERE job = ? AND attempt = ? AND worker_number > 0");
  query.Bind(record.sequence, int64_t{attempt});
  query.Next();
  SHARDMAX_RETURN_IF_ERROR(query.status());
  return query.Int(0);
}

absl::StatusOr<std::vector<v1::LogLine>> JobStore::Lines(int64_t job_sequence, int64_t after, int32_t limit) {
  Query query(database_,
              "SELECT number, time_us, level, source, attempt, text FROM log_lines "
              "WHERE job = ? AND number > ? ORDER BY number LIMIT ?");
  query.Bind(job_sequence, after, int64_t{limit});
  std::vector<v1::LogLine> lines;
  while (query.Next()) {
    v1::LogLine& line = lines.emplace_back();
    line.set_sequence(query.Int(0));
    *line.mutable_time() = ToTimestamp(query.Int(1));
    line.set_level(query.Text(2));
    line.set_source(query.Text(3));
    line.set_attempt(static_cast<int32_t>(query.Int(4)));
    line.set_text(query.Text(5));
  }
  SHARDMAX_RETURN_IF_ERROR(query.status());
  return lines;
}

}  // namespace shardmax
