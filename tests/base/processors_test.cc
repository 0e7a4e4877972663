// Which processors ranks and threads take.
#include "worker/base/processors.h"

#include <gmock/gmock.h>
#include <sched.h>

#include <atomic>
#include <thread>

#include "worker/base/thread_pool.h"

namespace shardmax {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(ShareOfProcessors, IsAContiguousPartOfThemForEachSharer) {
  const std::vector<int> allowed = {2, 3, 5, 8, 9};
  EXPECT_THAT(ShareOfProcessors(allowed, 0, 1), ElementsAre(2, 3, 5, 8, 9));
  EXPECT_THAT(ShareOfProcessors(allowed, 0, 2), ElementsAre(2, 3, 5));
  EXPECT_THAT(ShareOfProcessors(allowed, 1, 2), ElementsAre(8, 9));
}

TEST(ShareOfProcessors, IsNothingWhereTheyAreTooFew) {
  const std::vector<int> allowed = {4, 7};
  for (int i = 0; i < 3; ++i) EXPECT_THAT(ShareOfProcessors(allowed, i, 3), IsEmpty());
  EXPECT_THAT(ShareOfProcessors({}, 0, 1), IsEmpty());
}

TEST(ThreadPool, BindsEachThreadToItsProcessorAndTheCallerForTheCallOnly) {
  const std::vector<int> allowed = AllowedProcessors();
  ASSERT_FALSE(allowed.empty());
  std::vector<int> processors;
  for (int i = 0; i < 3; ++i) processors.push_back(allowed[i % allowed.size()]);
  ThreadPool pool(3, processors);
  EXPECT_TRUE(pool.pinned());
  std::vector<std::vector<int>> found(3);
  std::vector<int> runs_on(3);
  pool.Run([&](int thread) {
    found[thread] = AllowedProcessors();
    runs_on[thread] = sched_getcpu();
  });
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(found[i], ElementsAre(processors[i])) << "thread " << i;
    EXPECT_EQ(runs_on[i], processors[i]) << "thread " << i;
  }
  EXPECT_EQ(AllowedProcessors(), allowed) << "of the caller, after the call";
}

TEST(ThreadPool, LeavesThreadsToTheSystemWithoutAProcessorForEach) {
  const std::vector<int> allowed = AllowedProcessors();
  for (const size_t processors : {2, 4}) {
    ThreadPool pool(3, std::vector<int>(processors, allowed[0]));
    EXPECT_FALSE(pool.pinned());
    std::atomic<int> unbound = 0;
    pool.Run([&](int) { unbound += AllowedProcessors() == allowed ? 1 : 0; });
    EXPECT_EQ(unbound, 3);
  }
}

}  // namespace
}  // namespace shardmax
