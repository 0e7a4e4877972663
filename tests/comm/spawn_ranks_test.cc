#include "tests/support/spawn_ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest-spi.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "worker/base/status.h"

namespace shardmax {
namespace {

TEST(SpawnRanks, RunsEveryRankOnce) {
  std::atomic<int> ranks = 0;
  SpawnRanks(3, [&](Communicator& comm) {
    EXPECT_EQ(comm.size(), 3);
    ranks |= 1 << comm.rank();
  });
  EXPECT_EQ(ranks, 0b111);
}

TEST(SpawnRanks, FailsTheTestWithTheRankWhoseStatusIsBad) {
  EXPECT_NONFATAL_FAILURE_ON_ALL_THREADS(SpawnRanks(1, [](Communicator&) { return InvalidArgument("no bread"); }),
                                         "rank 0 of 1");
}

TEST(SpawnRanks, FailsTheTestOnAnException) {
  EXPECT_NONFATAL_FAILURE_ON_ALL_THREADS(SpawnRanks(1, [](Communicator&) { throw std::runtime_error("no salt"); }),
                                         "no salt");
}

TEST(SpawnRanksDeathTest, EndsTheProgramWhenARankHangs) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(SpawnRanks(2,
                          [](Communicator& comm) {
                            while (comm.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
                          },
                          {.limit = std::chrono::milliseconds(200)}),
               "still running after 200 ms: rank 1");
}

}  // namespace
}  // namespace shardmax
