#include "worker/base/side_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

namespace shardmax {
namespace {

TEST(SideThread, DoesWhatItIsToldBesideItsOwnerOnOneThread) {
  SideThread side;
  std::promise<void> owner_went_on;
  std::thread::id first, second;
  side.Start([&] {
    owner_went_on.get_future().wait();
    first = std::this_thread::get_id();
  });
  owner_went_on.set_value();  // Only reached if Start does not wait.
  side.Wait();
  side.Start([&] { second = std::this_thread::get_id(); });
  side.Wait();
  EXPECT_EQ(first, second);
  EXPECT_NE(first, std::this_thread::get_id());
}

TEST(SideThread, HasNothingToWaitForUnlessSomethingWasStarted) {
  SideThread side;
  side.Wait();
  int done = 0;
  side.Start([&] { ++done; });
  side.Wait();
  side.Wait();
  EXPECT_EQ(done, 1);
}

TEST(SideThread, EndsAfterWhatWasStarted) {
  std::atomic<int> done = 0;
  for (int i = 0; i < 100; ++i) {
    SideThread side;
    side.Start([&] { ++done; });
  }
  EXPECT_EQ(done, 100);
}

}  // namespace
}  // namespace shardmax
