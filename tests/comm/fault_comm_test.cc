#include "tests/support/fault_comm.h"

#include <gmock/gmock.h>

#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

TEST(FaultComm, FailsTheChosenCallOfTheChosenOperationOnTheChosenRank) {
  SpawnRanks(3, [](ThreadCommunicator& inner) {
    const absl::Status broken_link = Error(absl::StatusCode::kInternal, "cut");
    FaultComm comm(inner, {.rank = 1, .operation = &CommStats::barrier, .call = 2, .status = broken_link});
    float value = 1;
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(comm.AllReduceSum(std::span(&value, 1)).ok());
    ASSERT_TRUE(comm.Barrier().ok());
    const absl::Status status = comm.Barrier();
    if (comm.rank() == 1) {
      EXPECT_EQ(status, broken_link);
    } else {
      EXPECT_EQ(status, Error(absl::StatusCode::kUnavailable, "Barrier: lost rank 1"));
    }
    EXPECT_EQ(comm.AllReduceSum(std::span(&value, 1)), status);
  });
}

TEST(FaultComm, DelaysTheChosenCall) {
  constexpr std::chrono::milliseconds kDelay{500};
  SpawnRanks(2,
             [&](ThreadCommunicator& inner) {
               FaultComm comm(inner, {.rank = 0, .operation = &CommStats::barrier, .delay = kDelay});
               EXPECT_EQ(comm.Barrier(),
                         Error(absl::StatusCode::kDeadlineExceeded, "Barrier: no call within 100 ms from rank 0"));
             },
             {.timeout = std::chrono::milliseconds(100)});
}

}  // namespace
}  // namespace shardmax
