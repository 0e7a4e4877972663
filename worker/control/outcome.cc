#include "worker/control/outcome.h"

#include "worker/base/status.h"

namespace shardmax {
namespace {

bool MaySucceedElsewhere(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnknown:
      return true;
    default:
      return false;
  }
}

}  // namespace

Outcome OutcomeOf(const JobEnding& ending) {
  const std::string message = Message(ending.status);
  if (ending.broken) return {v1::JobEnded::OUTCOME_POOL_FAILED, message, /*leaving=*/true};
  if (ending.taken_away && !ending.status.ok()) return {v1::JobEnded::OUTCOME_SUPERSEDED, message};
  if (!ending.status.ok()) {
    return {MaySucceedElsewhere(ending.status.code()) ? v1::JobEnded::OUTCOME_POOL_FAILED
                                                      : v1::JobEnded::OUTCOME_JOB_FAILED,
            message};
  }
  if (!ending.stopped) return {v1::JobEnded::OUTCOME_SUCCEEDED, ""};
  if (ending.stop_requested) return {v1::JobEnded::OUTCOME_STOPPED, ""};
  return {v1::JobEnded::OUTCOME_INTERRUPTED, "the pool was told to leave", /*leaving=*/true};
}

}  // namespace shardmax
