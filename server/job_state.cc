#include "server/job_state.h"

#include <fmt/format.h>

#include "server/moment.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using v1::Job;

std::string WaitingReason(const v1::JobSpec& spec) {
  std::string pool = "a pool";
  if (spec.has_pool()) pool = fmt::format("pool {}", spec.pool());
  if (spec.min_ranks() > 1 && spec.has_max_ranks()) {
    return fmt::format("waits for {} of {} to {} ranks", pool, spec.min_ranks(), spec.max_ranks());
  }
  if (spec.min_ranks() > 1) return fmt::format("waits for {} of at least {} ranks", pool, spec.min_ranks());
  if (spec.has_max_ranks()) return fmt::format("waits for {} of at most {} ranks", pool, spec.max_ranks());
  return fmt::format("waits for {}", pool);
}

std::string RunningReason(const Job& job) {
  return fmt::format("runs on pool {} ({} rank{}), attempt {}", job.pool(), job.ranks(), job.ranks() == 1 ? "" : "s",
                     job.attempt());
}

void Finish(JobRecord& record, v1::JobState state, std::string reason, int64_t now_us) {
  record.job.set_state(state);
  record.job.set_reason(std::move(reason));
  *record.job.mutable_finished() = ToTimestamp(now_us);
  record.session.clear();
}

void Requeue(JobRecord& record, std::string reason, int64_t now_us) {
  record.job.set_state(v1::PENDING);
  record.job.set_reason(std::move(reason));
  record.pending_since_us = now_us;
}

std::string Because(const std::string& what, const std::string& reason) {
  return reason.empty() ? what : fmt::format("{}: {}", what, reason);
}

// The pool failed the job: again, unless it was to stop anyway or has had its chances.
void Restart(JobRecord& record, const std::string& what, int64_t now_us) {
  Job& job = record.job;
  if (job.restarts() >= job.spec().max_restarts()) {
    const std::string times = job.restarts() == 1 ? "1 restart" : fmt::format("{} restarts", job.restarts());
    Finish(record, v1::FAILED, fmt::format("gave up after {}: {}", times, what), now_us);
    return;
  }
  job.set_restarts(job.restarts() + 1);
  const std::string from = job.checkpoint_step() > 0 ? "its newest valid checkpoint" : "the beginning";
  Requeue(record,
          fmt::format("{}; {} to start again from {} (restart {} of {})", what, WaitingReason(job.spec()), from,
                      job.restarts(), job.spec().max_restarts()),
          now_us);
}

}  // namespace

bool IsFinal(v1::JobState state) {
  return state == v1::SUCCEEDED || state == v1::FAILED || state == v1::STOPPED;
}

void Queue(JobRecord& record, int64_t now_us) {
  *record.job.mutable_submitted() = ToTimestamp(now_us);
  Requeue(record, WaitingReason(record.job.spec()), now_us);
}

void Assign(JobRecord& record, const PoolLaunch& launch, int64_t now_us) {
  Job& job = record.job;
  job.set_state(v1::RUNNING);
  job.set_attempt(job.attempt() + 1);
  job.set_pool(launch.name);
  job.set_ranks(launch.ranks);
  job.set_reason(RunningReason(job));
  record.session = launch.session;
  if (!job.has_started()) *job.mutable_started() = ToTimestamp(now_us);
}

void EndAttempt(JobRecord& record, AttemptEnd end, const std::string& reason, int64_t now_us) {
  Job& job = record.job;
  if (end != AttemptEnd::kPoolLost) record.session.clear();
  switch (end) {
    case AttemptEnd::kSucceeded:
      return Finish(record, v1::SUCCEEDED, reason.empty() ? "all steps are done" : reason, now_us);
    case AttemptEnd::kJobFailed:
      return Finish(record, v1::FAILED, reason.empty() ? "the job failed; see its log" : reason, now_us);
    case AttemptEnd::kStopped:
      return Finish(record, v1::STOPPED, Because("stopped on request", reason), now_us);
    default:
      break;
  }
  const std::string pool = fmt::format("pool {}", job.pool());
  std::string what;
  switch (end) {
    case AttemptEnd::kInterrupted:
      what = Because(pool + " was told to leave", reason);
      break;
    case AttemptEnd::kNotDelivered:
      what = pool + " did not get the job";
      break;
    case AttemptEnd::kPoolFailed:
      what = Because(pool + " failed", reason);
      break;
    default:
      what = Because(pool + " was lost", reason);
  }
  if (job.stop_requested()) {
    return Finish(record, v1::STOPPED, fmt::format("stopped on request; {}", what), now_us);
  }
  if (end == AttemptEnd::kInterrupted || end == AttemptEnd::kNotDelivered) {
    return Requeue(record, fmt::format("{}; {} to go on", what, WaitingReason(job.spec())), now_us);
  }
  Restart(record, what, now_us);
}

bool MayReadopt(const JobRecord& record, const PoolLaunch& launch, int32_t attempt) {
  return record.job.state() == v1::PENDING && record.job.attempt() == attempt && record.job.pool() == launch.name &&
         !record.session.empty() && record.session == launch.session;
}

void Readopt(JobRecord& record, const PoolLaunch& launch) {
  Job& job = record.job;
  job.set_state(v1::RUNNING);
  job.set_ranks(launch.ranks);
  job.set_restarts(job.restarts() - 1);
  job.set_reason(RunningReason(job) + ", which came back");
}

absl::Status RequestStop(JobRecord& record, const std::string& by, int64_t now_us) {
  Job& job = record.job;
  const std::string of_whom = by.empty() ? "" : fmt::format(" of {}", by);
  switch (job.state()) {
    case v1::STOPPED:
      return absl::OkStatus();
    case v1::PENDING:
      job.set_stop_requested(true);
      Finish(record, v1::STOPPED,
             fmt::format("stopped on request{} while it waited{}", of_whom,
                         job.attempt() == 0 ? "; it never ran" : " to go on"),
             now_us);
      return absl::OkStatus();
    case v1::RUNNING:
      if (job.stop_requested()) return absl::OkStatus();
      job.set_stop_requested(true);
      job.set_reason(fmt::format("{}; stops after its current step, on request{}", job.reason(), of_whom));
      return absl::OkStatus();
    default:
      return Error(absl::StatusCode::kFailedPrecondition, "job {} cannot be stopped: it is {} already ({})", job.id(),
                   v1::JobState_Name(job.state()), job.reason());
  }
}

}  // namespace shardmax
