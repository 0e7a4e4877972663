#include "tests/support/spawn_ranks.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "worker/base/status.h"

namespace shardmax {
namespace {

// Which ranks are still running.
class Roll {
 public:
  explicit Roll(int size) : running_(size, true), left_(size) {}

  void Done(int rank) {
    std::lock_guard<std::mutex> lock(mutex_);
    running_[rank] = false;
    --left_;
    changed_.notify_all();
  }

  // Returns when no rank runs any more, or ends the program.
  void Await(std::chrono::milliseconds limit) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (changed_.wait_for(lock, limit, [this] { return left_ == 0; })) return;
    std::fprintf(stderr, "SpawnRanks: still running after %lld ms: rank", static_cast<long long>(limit.count()));
    for (size_t r = 0; r < running_.size(); ++r) {
      if (running_[r]) std::fprintf(stderr, " %zu", r);
    }
    std::fprintf(stderr, "\n");
    std::abort();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> running_;
  int left_;
};

void RunRank(std::unique_ptr<ThreadCommunicator> comm,
             const std::function<absl::Status(ThreadCommunicator&)>& program) {
  SCOPED_TRACE("rank " + std::to_string(comm->rank()) + " of " + std::to_string(comm->size()));
  try {
    const absl::Status status = program(*comm);
    EXPECT_TRUE(status.ok()) << status;
  } catch (const std::exception& e) {
    ADD_FAILURE() << "threw: " << e.what();
  }
}

}  // namespace

void SpawnRankThreads(int size, const std::function<absl::Status(ThreadCommunicator&)>& program,
                      const SpawnOptions& options) {
  Roll roll(size);
  std::vector<std::thread> threads;
  for (auto& comm : MakeThreadGroup(size, options.timeout)) {
    threads.emplace_back([&program, &roll, comm = std::move(comm)]() mutable {
      const int rank = comm->rank();
      RunRank(std::move(comm), program);
      roll.Done(rank);
    });
  }
  roll.Await(options.limit);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace shardmax
