#include "worker/base/side_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <stdexcept>
#include <thread>

namespace shardmax {
namespace {

TEST(SideThread, DoesWhatItIsToldBesideItsOwnerOnOneThread) {
  SideThread side;
  std::promise<void> owner_went_on;
  std::thread::id first, second;
  {
    SideThread::Task task(side, [&] {
      owner_went_on.get_future().wait();
      first = std::this_thread::get_id();
    });
    owner_went_on.set_value();  // Only reached if the task does not block its maker.
    task.Wait();
  }
  SideThread::Task(side, [&] { second = std::this_thread::get_id(); }).Wait();
  EXPECT_EQ(first, second);
  EXPECT_NE(first, std::this_thread::get_id());
}

TEST(SideThread, HasDoneATaskWhenThatIsGone) {
  SideThread side;
  for (int i = 0; i < 100; ++i) {
    std::atomic<int> done = 0;
    {
      const SideThread::Task task(side, [&] { ++done; });
    }
    EXPECT_EQ(done, 1);
  }
}

TEST(SideThread, EndsWithoutEverHavingBegun) {
  const SideThread side;
}

TEST(SideThread, HandsOnWhatWasThrownOnceAndGoesOn) {
  SideThread side;
  {
    SideThread::Task task(side, [] { throw std::runtime_error("no memory"); });
    EXPECT_THROW(task.Wait(), std::runtime_error);
    task.Wait();
  }
  {
    const SideThread::Task unheard(side, [] { throw std::runtime_error("no memory"); });
  }
  int done = 0;
  SideThread::Task(side, [&] { ++done; }).Wait();
  EXPECT_EQ(done, 1);
}

}  // namespace
}  // namespace shardmax
