#include "worker/comm/thread_comm.h"

#include <gmock/gmock.h>

#include <latch>
#include <thread>

#include "tests/comm/comm_cases.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

class ThreadComm : public testing::TestWithParam<std::tuple<CommCase, int>> {};

TEST_P(ThreadComm, Keeps) {
  const auto& [c, size] = GetParam();
  SpawnRanks(size, c.run, {.timeout = c.timeout});
}

INSTANTIATE_TEST_SUITE_P(Contract, ThreadComm,
                         testing::Combine(testing::ValuesIn(CommCases()), testing::Values(1, 2, 3, 8)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + "On" + std::to_string(std::get<1>(info.param));
                         });

TEST(ThreadComm, AnAbortedRankFailsItsPeersAndItselfAtOnce) {
  SpawnRanks(3, [](ThreadCommunicator& comm) {
    if (comm.rank() == 1) {
      comm.Abort();
      EXPECT_EQ(Message(comm.Barrier()), "Barrier: rank 1 aborted");
      return;
    }
    const absl::Status status = comm.Barrier();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(Message(status), testing::AnyOf("Barrier: lost rank 1", "Barrier: rank 1 aborted"));
  });
}

TEST(ThreadComm, AbortFromAnotherThreadEndsAWait) {
  std::latch waited(1);
  SpawnRanks(2, [&](ThreadCommunicator& comm) {
    if (comm.rank() == 1) return waited.wait();
    std::thread other([&comm] { comm.Abort(); });
    const absl::Status status = comm.Barrier();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    other.join();
    waited.count_down();
  });
}

}  // namespace
}  // namespace shardmax
