#include "worker/base/watchdog.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace shardmax {
namespace {

using std::chrono::milliseconds;

TEST(Watchdog, LeavesACallAloneThatEndsInTime) {
  const Watchdog watchdog(std::chrono::minutes(10), "a call");
}

TEST(WatchdogDeathTest, EndsAProcessWhoseCallDoesNotEnd) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const Watchdog watchdog(milliseconds(50), "rank 3: MPI_Finalize");
        std::this_thread::sleep_for(std::chrono::minutes(10));
      },
      testing::ExitedWithCode(1), "rank 3: MPI_Finalize did not end within 0.05 s");
}

}  // namespace
}  // namespace shardmax
