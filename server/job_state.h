// The life of a job: which states follow which, why, and what a restart costs. Pure; knows neither database nor
// network.
//
//   PENDING ──Assign──▶ RUNNING ──EndAttempt──▶ SUCCEEDED, FAILED, STOPPED (final), or PENDING again
//      ▲└──RequestStop──▶ STOPPED       │
//      └────────────────────────────────┘   and back by Readopt, if the pool that was lost still runs the attempt
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "shardmax/v1/control.pb.h"

namespace shardmax {

// A job, as callers see it and with what only the server needs.
struct JobRecord {
  shardmax::v1::Job job;
  int64_t sequence = 0;          // The number in the id: order of submission.
  std::string session;           // The launch of job.pool() that runs the attempt, or may still run it.
  int64_t pending_since_us = 0;  // Of the newest PENDING.
  std::string submit_key;        // Idempotency key; empty: none.
  std::string submit_digest;     // Of the spec as it was submitted.
};

// One launch of a pool.
struct PoolLaunch {
  std::string name;
  std::string session;
  int32_t ranks = 0;
};

enum class AttemptEnd {
  kSucceeded,
  kStopped,
  kJobFailed,     // Another attempt would end alike.
  kPoolFailed,    // Another attempt may succeed. Costs a restart.
  kPoolLost,      // Nothing is heard of the pool, which may still come back. Costs a restart.
  kPoolGone,      // The launch is known to have ended. Costs a restart.
  kInterrupted,   // The pool was told to leave. Costs none.
  kNotDelivered,  // The pool never got the assignment. Costs none.
};

bool IsFinal(shardmax::v1::JobState state);

// A new job becomes PENDING.
void Queue(JobRecord& record, int64_t now_us);

// PENDING becomes RUNNING, as the next attempt.
void Assign(JobRecord& record, const PoolLaunch& launch, int64_t now_us);

// RUNNING becomes final or PENDING. `reason` is the pool's, or the server's; may be empty.
void EndAttempt(JobRecord& record, AttemptEnd end, const std::string& reason, int64_t now_us);

// Whether `launch` may go on with `attempt` although the job is PENDING since the pool was lost.
bool MayReadopt(const JobRecord& record, const PoolLaunch& launch, int32_t attempt);

// PENDING becomes RUNNING, in the same attempt; the restart is given back. Requires MayReadopt.
void Readopt(JobRecord& record, const PoolLaunch& launch);

// PENDING becomes STOPPED; RUNNING notes the request; STOPPED stays. FailedPrecondition in another final state.
// `by` is the name of a caller, or empty.
absl::Status RequestStop(JobRecord& record, const std::string& by, int64_t now_us);

}  // namespace shardmax
