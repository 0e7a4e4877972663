#include "worker/folder_lock.h"

#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>
#include <vector>

#include "tests/data/temp_folder.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using testing::HasSubstr;

TEST(FolderLock, IsRefusedToTheSecondAndNamesTheFirst) {
  const TempFolder folder;
  const auto first = FolderLock::Take(folder.path(), 0, "the first job");
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status second = FolderLock::Take(folder.path(), 0, "the second job").status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
  char host[256] = {};
  ASSERT_EQ(gethostname(host, sizeof(host) - 1), 0);
  EXPECT_EQ(Message(second), fmt::format("{} is in use by pid {} on {}, the first job", folder.path(), getpid(), host));
}

TEST(FolderLock, EndsWithItsObjectAndLeavesNothing) {
  const TempFolder folder;
  {
    auto lock = FolderLock::Take(folder.path(), 0, "one");
    ASSERT_TRUE(lock.ok()) << lock.status();
    const FolderLock moved = *std::move(lock);
    EXPECT_FALSE(FolderLock::Take(folder.path(), 0, "two").ok());
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_TRUE(FolderLock::Take(folder.path(), 0, "two").ok());
}

TEST(FolderLock, WaitsForTheHolderToLetGo) {
  const TempFolder folder;
  auto first = FolderLock::Take(folder.path(), 0, "first");
  ASSERT_TRUE(first.ok());
  std::atomic<bool> waiting = false;
  std::thread other([&] {
    waiting = true;
    EXPECT_TRUE(FolderLock::Take(folder.path(), 60'000, "second").ok());
  });
  while (!waiting) std::this_thread::yield();
  { const FolderLock ended = *std::move(first); }
  other.join();
}

TEST(FolderLock, GivesUpAfterTheTimeToWait) {
  const TempFolder folder;
  const auto first = FolderLock::Take(folder.path(), 0, "first");
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(FolderLock::Take(folder.path(), 100, "second").ok());
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(100));
}

TEST(FolderLock, IsNeverHeldByTwo) {
  const TempFolder folder;
  std::atomic<int> holders = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 10; ++round) {
        const auto lock = FolderLock::Take(folder.path(), 60'000, "one of four");
        ASSERT_TRUE(lock.ok()) << lock.status();
        EXPECT_EQ(++holders, 1);
        std::this_thread::yield();
        --holders;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(FolderLock, OfAProcessThatIsGoneIsFree) {
  const TempFolder folder;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto lock = FolderLock::Take(folder.path(), 0, "the child");
    _exit(lock.ok() ? 0 : 1);  // Without its destructor.
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_TRUE(std::filesystem::exists(folder.path(".lock")));
  EXPECT_TRUE(FolderLock::Take(folder.path(), 0, "the parent").ok());
}

TEST(FolderLock, OfAFolderThatDoesNotExistIsTheSystemsError) {
  const TempFolder folder;
  const absl::Status status = FolderLock::Take(folder.path("nowhere"), 0, "one").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(status), HasSubstr("nowhere/.lock: No such file"));
}

}  // namespace
}  // namespace shardmax
