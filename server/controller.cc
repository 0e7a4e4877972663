#include "server/controller.h"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <limits>
#include <utility>

#include "worker/base/status.h"
#include "worker/data/quote.h"
#include "worker/spec/text.h"

namespace shardmax {
namespace {

using v1::Job;

constexpr int32_t kDefaultPageSize = 100;
constexpr int32_t kMaxPageSize = 1000;
constexpr char kShutDown[] = "the server shuts down; jobs go on: connect again";
constexpr size_t kMaxReasonBytes = 4096;

absl::StatusOr<int64_t> SequenceOfToken(const std::string& token) {
  if (token.empty()) return std::numeric_limits<int64_t>::max();
  int64_t sequence = 0;
  const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), sequence);
  if (error == std::errc() && end == token.data() + token.size() && sequence > 0) return sequence;
  return InvalidArgument("page_token {} is not one that this server gave", Quoted(token));
}

absl::StatusOr<int32_t> PageSize(int32_t wanted) {
  if (wanted < 0 || wanted > kMaxPageSize) {
    return InvalidArgument("page_size is {}: allowed is 0 to {}", wanted, kMaxPageSize);
  }
  return wanted == 0 ? kDefaultPageSize : wanted;
}

Job WithoutSpec(const JobRecord& record) {
  Job job = record.job;
  job.clear_spec();
  return job;
}

std::string LevelOf(v1::JobState state) {
  return state == v1::FAILED ? "error" : state == v1::PENDING ? "warning" : "info";
}

}  // namespace

Controller::Controller(ControllerOptions options, std::unique_ptr<JobStore> store, ControllerObserver& observer)
    : options_(std::move(options)), jobs_(std::move(store)), observer_(observer) {}

absl::StatusOr<std::unique_ptr<Controller>> Controller::Start(ControllerOptions options,
                                                              std::unique_ptr<JobStore> store,
                                                              ControllerObserver& observer, const Moment& now) {
  std::unique_ptr<Controller> controller(new Controller(std::move(options), std::move(store), observer));
  SHARDMAX_RETURN_IF_ERROR(controller->Load(now));
  return controller;
}

absl::Status Controller::Load(const Moment& now) {
  loaded_ = false;
  pools_.clear();
  SHARDMAX_RETURN_IF_ERROR(jobs_.Load());
  for (const auto& [id, record] : jobs_.running()) {
    Pool pool;
    pool.launch = {record.job.pool(), record.session, record.job.ranks()};
    pool.job = id;
    pool.attempt = record.job.attempt();
    pool.last_heard = pool.lost = now;
    pools_.emplace(pool.launch.name, std::move(pool));
  }
  loaded_ = true;
  return absl::OkStatus();
}

absl::Status Controller::Available() const {
  if (shut_down_) return Error(absl::StatusCode::kUnavailable, "{}", kShutDown);
  if (loaded_ && failed_.ok()) return absl::OkStatus();
  return Error(absl::StatusCode::kUnavailable, "the server cannot use its database now: {}",
               failed_.ok() ? "it could not be read" : Message(failed_));
}

void Controller::Check(const absl::Status& written) {
  if (failed_.ok()) failed_ = written;
}

absl::StatusOr<Job> Controller::FindSubmit(const JobRecord& record) {
  SHARDMAX_RETURN_IF_ERROR(Available());
  SHARDMAX_ASSIGN_OR_RETURN(const auto found, jobs_.store().FindSubmit(record.job.owner(), record.submit_key));
  if (!found) return absl::NotFoundError("no such key");
  if (found->submit_digest != record.submit_digest) {
    return Error(absl::StatusCode::kAlreadyExists,
                 "idempotency_key {} was used for job {}, whose spec differs: use a new key for a new job",
                 Quoted(record.submit_key), found->job.id());
  }
  SHARDMAX_ASSIGN_OR_RETURN(const JobRecord newest, jobs_.Find(found->job.id()));
  return newest.job;
}

absl::StatusOr<Job> Controller::Submit(JobRecord record, const Moment& now) {
  SHARDMAX_RETURN_IF_ERROR(Available());
  if (!record.submit_key.empty()) {
    auto found = FindSubmit(record);
    if (found.status().code() != absl::StatusCode::kNotFound) return found;
  }
  Queue(record, now.unix_us);
  Check(jobs_.Add(record, options_.jobs_folder));
  SHARDMAX_RETURN_IF_ERROR(Available());
  const std::string by = record.job.owner().empty() ? "" : fmt::format(" by {}", record.job.owner());
  Say(record, "info", fmt::format("submitted{}; {}", by, record.job.reason()), now);
  AfterCommit([this, job = WithoutSpec(record)](const absl::Status& committed) {
    if (!committed.ok()) return;
    observer_.Submitted();
    observer_.JobChanged(job);
  });
  return record.job;
}

absl::StatusOr<JobRecord> Controller::Find(const std::string& job) {
  SHARDMAX_RETURN_IF_ERROR(Available());
  return jobs_.Find(job);
}

absl::StatusOr<v1::ListJobsResponse> Controller::List(const v1::ListJobsRequest& request) {
  SHARDMAX_RETURN_IF_ERROR(Available());
  SHARDMAX_ASSIGN_OR_RETURN(const int64_t before, SequenceOfToken(request.page_token()));
  SHARDMAX_ASSIGN_OR_RETURN(const int32_t size, PageSize(request.page_size()));
  JobFilter filter{.name = request.name(), .pool = request.pool()};
  for (const int state : request.states()) {
    if (!v1::JobState_IsValid(state) || state == v1::JOB_STATE_UNSPECIFIED) {
      return InvalidArgument("states has {}, which is no state of a job", state);
    }
    filter.states.push_back(static_cast<v1::JobState>(state));
  }
  // One more than asked for tells whether there is a next page.
  SHARDMAX_ASSIGN_OR_RETURN(std::vector<JobRecord> records, jobs_.List(filter, before, size + 1));
  v1::ListJobsResponse response;
  if (records.size() > static_cast<size_t>(size)) {
    records.pop_back();
    response.set_next_page_token(std::to_string(records.back().sequence));
  }
  for (JobRecord& record : records) *response.add_jobs() = std::move(record.job);
  return response;
}

absl::StatusOr<Job> Controller::Stop(const JobRecord& found, const std::string& by, const Moment& now) {
  JobRecord record = found;
  const bool requested = record.job.stop_requested();
  SHARDMAX_RETURN_IF_ERROR(RequestStop(record, by, now.unix_us));
  if (record.job.state() != found.job.state() || record.job.stop_requested() != requested) {
    Save(record);
    Say(record, "info", record.job.reason(), now);
    SHARDMAX_RETURN_IF_ERROR(Available());
  }
  if (const Pool* pool = ConnectedPool(record.job.pool()); pool != nullptr && pool->job == record.job.id()) {
    SendStop(*pool);
  }
  return WithoutSpec(record);
}

absl::Status Controller::Delete(const JobRecord& record) {
  const Job& job = record.job;
  if (!IsFinal(job.state())) {
    return Error(absl::StatusCode::kFailedPrecondition, "job {} is {}: stop it before you delete it", job.id(),
                 v1::JobState_Name(job.state()));
  }
  Check(jobs_.Remove(record));
  SHARDMAX_RETURN_IF_ERROR(Available());
  AfterCommit([this, id = job.id()](const absl::Status& committed) {
    if (committed.ok()) observer_.JobDeleted(id);
  });
  return absl::OkStatus();
}

absl::Status Controller::CheckpointNow(const JobRecord& record) {
  const Job& job = record.job;
  if (job.state() != v1::RUNNING) {
    return Error(absl::StatusCode::kFailedPrecondition, "job {} does not run: it is {} ({})", job.id(),
                 v1::JobState_Name(job.state()), job.reason());
  }
  const Pool* pool = ConnectedPool(job.pool());
  if (pool == nullptr) {
    return Error(absl::StatusCode::kUnavailable, "pool {} of job {} is not connected now: try again in some seconds",
                 job.pool(), job.id());
  }
  v1::ServerMessage message;
  message.mutable_checkpoint()->set_job(job.id());
  message.mutable_checkpoint()->set_attempt(job.attempt());
  Send(*pool, std::move(message));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<v1::LogLine>> Controller::Lines(const JobRecord& record, int64_t after, int32_t limit) {
  SHARDMAX_RETURN_IF_ERROR(Available());
  return jobs_.store().Lines(record.sequence, after, limit);
}

absl::StatusOr<std::map<v1::JobState, int64_t>> Controller::CountByState() {
  SHARDMAX_RETURN_IF_ERROR(Available());
  return jobs_.store().CountByState();
}

void Controller::Save(const JobRecord& record) {
  Check(jobs_.Save(record));
  AfterCommit([this, job = WithoutSpec(record)](const absl::Status& committed) {
    if (committed.ok()) observer_.JobChanged(job);
  });
}

void Controller::Say(const JobRecord& record, const std::string& level, const std::string& text, const Moment& now) {
  v1::LogLine line;
  *line.mutable_time() = ToTimestamp(now.unix_us);
  line.set_level(level);
  line.set_source("server");
  line.set_attempt(record.job.attempt());
  line.set_text(text);
  Check(jobs_.store().AddLine(record, line, 0));
  AfterCommit([this, id = record.job.id()](const absl::Status& committed) {
    if (committed.ok()) observer_.LinesAdded(id);
  });
}

void Controller::End(JobRecord record, AttemptEnd end, const std::string& reason, const Moment& now) {
  EndAttempt(record, end, Printable(reason, kMaxReasonBytes), now.unix_us);
  Save(record);
  Say(record, LevelOf(record.job.state()), record.job.reason(), now);
  if (record.job.state() != v1::PENDING) return;
  const char* cause = "pool_lost";
  if (end == AttemptEnd::kInterrupted) cause = "interrupted";
  if (end == AttemptEnd::kPoolFailed) cause = "pool_failed";
  AfterCommit([this, cause](const absl::Status& committed) {
    if (committed.ok()) observer_.Restarted(cause);
  });
}

void Controller::PlaceJobs(const Moment& now) {
  if (jobs_.queue().size() == 0) return;
  std::vector<IdlePool> idle;
  for (const auto& [name, pool] : pools_) {
    if (pool.link && pool.job.empty() && !pool.leaving) idle.push_back({name, pool.launch.ranks});
  }
  if (idle.empty()) return;
  for (const Placement& placement : jobs_.queue().Place(std::move(idle))) {
    Pool& pool = pools_.at(placement.pool);
    auto record = jobs_.Find(placement.job);
    if (!record.ok()) return Check(record.status());
    Assign(*record, pool.launch, now.unix_us);
    Save(*record);
    Say(*record, "info", record->job.reason(), now);
    pool.job = placement.job;
    pool.attempt = record->job.attempt();
    PoolsChanged();
    v1::ServerMessage message;
    v1::Assignment& assignment = *message.mutable_assignment();
    assignment.set_job(record->job.id());
    assignment.set_attempt(record->job.attempt());
    assignment.set_folder(record->job.folder());
    for (const std::string& root : options_.data_roots) assignment.add_data_roots(root);
    *assignment.mutable_spec() = std::move(*record->job.mutable_spec());
    Send(pool, std::move(message));
    const double waited_s = static_cast<double>(now.unix_us - record->pending_since_us) / 1e6;
    AfterCommit([this, waited_s](const absl::Status& committed) {
      if (committed.ok()) observer_.Assigned(waited_s);
    });
  }
}

void Controller::EndBatch(const Moment& now) {
  if (loaded_ && !shut_down_ && failed_.ok()) PlaceJobs(now);
  absl::Status status = failed_;
  if (status.ok()) {
    status = jobs_.store().Commit();
  } else {
    jobs_.store().Rollback();
  }
  if (!status.ok()) {
    status = Error(absl::StatusCode::kUnavailable, "the server could not write its database: {}", Message(status));
  }
  // An effect may call back (a finished stream), so the list is taken first.
  const auto effects = std::exchange(effects_, {});
  failed_ = absl::OkStatus();
  if (!status.ok()) {
    for (const auto& [name, pool] : pools_) {
      if (pool.link) pool.link->Close(status);
    }
    Load(now).IgnoreError();
    pools_changed_ = true;
  } else if (!loaded_) {
    Load(now).IgnoreError();
  }
  for (const auto& effect : effects) effect(status);
  if (std::exchange(pools_changed_, false)) observer_.PoolsChanged();
}

void Controller::Shutdown(const Moment& now) {
  if (loaded_) Check(jobs_.FlushAllProgress());
  shut_down_ = true;
  for (auto& [name, pool] : pools_) {
    if (pool.link) {
      Close(pool.link, Error(absl::StatusCode::kUnavailable, "{}", kShutDown));
    }
    pool.link = nullptr;
    pool.lost = now;
  }
}

}  // namespace shardmax
