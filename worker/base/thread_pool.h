// The compute threads of one rank.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace shardmax {

// A fixed team of threads that run one function together. Thread 0 is the caller, so a team of one starts no thread.
// One thread calls Run at a time.
class ThreadPool {
 public:
  // Requires threads >= 1. With as many `processors` (ids), thread i runs on processors[i] alone, the caller for the
  // time of Run. Else threads are left to the system: it knows better who else wants a processor.
  explicit ThreadPool(int threads, std::vector<int> processors = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  bool pinned() const { return !processors_.empty(); }

  // Calls fn(i) for i in [0, threads()), each on its own thread (always the same for the same i), and waits for all.
  // `fn` must not throw.
  void Run(absl::FunctionRef<void(int)> fn);

  // Calls fn(first, end) with the parts of [0, count) on the threads; a thread without a part is not called.
  void ForEachPart(int64_t count, absl::FunctionRef<void(int64_t first, int64_t end)> fn);

 private:
  void Work(int index);

  std::vector<int> processors_;  // Empty if not pinned.
  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  const absl::FunctionRef<void(int)>* fn_ = nullptr;  // Guarded by mutex_, as all below.
  int64_t round_ = 0;
  int running_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace shardmax
