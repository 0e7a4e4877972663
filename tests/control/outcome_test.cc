#include "worker/control/outcome.h"

#include <gtest/gtest.h>

namespace shardmax {
namespace {

v1::JobEnded::Outcome Of(const JobEnding& ending) {
  return OutcomeOf(ending).outcome;
}

TEST(Outcome, OfAJobThatEndsWell) {
  EXPECT_EQ(Of({}), v1::JobEnded::OUTCOME_SUCCEEDED);
  EXPECT_EQ(Of({.stopped = true, .stop_requested = true}), v1::JobEnded::OUTCOME_STOPPED);
  EXPECT_EQ(Of({.stopped = true}), v1::JobEnded::OUTCOME_INTERRUPTED);
  EXPECT_EQ(Of({.stop_requested = true}), v1::JobEnded::OUTCOME_SUCCEEDED) << "it was at its last step";
}

TEST(Outcome, TheJobsOwnFaultsAreNotTriedAgain) {
  for (const auto code :
       {absl::StatusCode::kInvalidArgument, absl::StatusCode::kFailedPrecondition, absl::StatusCode::kAlreadyExists,
        absl::StatusCode::kOutOfRange, absl::StatusCode::kNotFound, absl::StatusCode::kPermissionDenied,
        absl::StatusCode::kUnimplemented, absl::StatusCode::kDataLoss}) {
    EXPECT_EQ(Of({.status = absl::Status(code, "x")}), v1::JobEnded::OUTCOME_JOB_FAILED) << static_cast<int>(code);
  }
}

TEST(Outcome, ThePoolsFaultsAre) {
  for (const auto code :
       {absl::StatusCode::kUnavailable, absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kResourceExhausted,
        absl::StatusCode::kInternal, absl::StatusCode::kAborted, absl::StatusCode::kUnknown}) {
    EXPECT_EQ(Of({.status = absl::Status(code, "x")}), v1::JobEnded::OUTCOME_POOL_FAILED) << static_cast<int>(code);
  }
}

TEST(Outcome, ABrokenCommunicatorIsThePoolsFaultWhateverItSays) {
  const JobEnding ending = {.status = absl::InvalidArgumentError("calls differ"), .broken = true};
  EXPECT_EQ(Of(ending), v1::JobEnded::OUTCOME_POOL_FAILED);
  EXPECT_EQ(OutcomeOf(ending).reason, "calls differ");
}

TEST(Outcome, APoolThatEndsSaysSoAndGetsNoOtherJob) {
  EXPECT_TRUE(OutcomeOf({.status = absl::UnavailableError("lost rank 1"), .broken = true}).leaving);
  EXPECT_TRUE(OutcomeOf({.stopped = true}).leaving);
  EXPECT_FALSE(OutcomeOf({}).leaving);
  EXPECT_FALSE(OutcomeOf({.stopped = true, .stop_requested = true}).leaving);
  EXPECT_FALSE(OutcomeOf({.status = absl::ResourceExhaustedError("no space left on device")}).leaving);
}

TEST(Outcome, AJobThatWasTakenAwayIsSuperseded) {
  EXPECT_EQ(Of({.status = absl::AbortedError("x"), .taken_away = true}), v1::JobEnded::OUTCOME_SUPERSEDED);
  EXPECT_EQ(Of({.taken_away = true}), v1::JobEnded::OUTCOME_SUCCEEDED) << "it was done before it noticed";
}

}  // namespace
}  // namespace shardmax
