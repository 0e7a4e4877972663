// The compute threads of one rank.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace shardmax {

// A fixed team of threads that run one function together. Thread 0 is the caller, so a team of one starts no thread.
// One thread calls Run at a time.
class ThreadPool {
 public:
  // Requires threads >= 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls fn(i) for i in [0, threads()), each on its own thread (always the same for the same i), and waits for all.
  // `fn` must not throw.
  void Run(const std::function<void(int)>& fn);

  // Calls fn(first, end) with the parts of [0, count) on the threads; a thread without a part is not called.
  void ForEachPart(int64_t count, const std::function<void(int64_t first, int64_t end)>& fn);

 private:
  void Work(int index);

  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  const std::function<void(int)>* fn_ = nullptr;  // Guarded by mutex_, as all below.
  int64_t round_ = 0;
  int running_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace shardmax
