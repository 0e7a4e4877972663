// The one thread that the controller runs on, and a few for work that blocks.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace shardmax {

// Runs what is posted, in order, in batches: those that came while a batch ran (and its commit was written) are the
// next one. So at any rate of requests there is one commit for many.
class Loop {
 public:
  struct Hooks {
    std::function<void()> tick;       // Every `period`.
    std::function<void()> end_batch;  // After each batch, and each tick.
  };

  explicit Loop(std::chrono::milliseconds period) : period_(period) {}
  // Stops.
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Starts the thread. Once.
  void Start(Hooks hooks);

  // Any thread. After Stop() it is dropped.
  void Post(std::function<void()> task);

  // Runs what was posted before, and ends the thread. Again: no effect.
  void Stop();

 private:
  void Run();

  const std::chrono::milliseconds period_;
  Hooks hooks_;
  std::mutex mutex_;
  std::condition_variable posted_;
  std::vector<std::function<void()>> tasks_;
  bool stop_ = false;
  std::thread thread_;
};

// Threads for work that reads files: on a file system that hangs it must hold up neither the loop nor gRPC.
class BlockingPool {
 public:
  explicit BlockingPool(int threads);
  // Stops.
  ~BlockingPool();
  BlockingPool(const BlockingPool&) = delete;
  BlockingPool& operator=(const BlockingPool&) = delete;

  // Any thread. After Stop() it is dropped.
  void Post(std::function<void()> task);

  // Runs what was posted before, and ends the threads. Again: no effect.
  void Stop();

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable posted_;
  std::deque<std::function<void()>> tasks_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace shardmax
