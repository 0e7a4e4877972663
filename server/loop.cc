#include "server/loop.h"

#include <utility>

namespace shardmax {
namespace {

// A batch of more would make the first of it wait for the last.
constexpr size_t kMaxBatch = 256;

}  // namespace

Loop::~Loop() {
  Stop();
}

void Loop::Start(Hooks hooks) {
  hooks_ = std::move(hooks);
  thread_ = std::thread([this] { Run(); });
}

void Loop::Post(std::function<void()> task) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stop_) return;
  tasks_.push_back(std::move(task));
  if (tasks_.size() == 1) posted_.notify_one();
}

void Loop::Stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    posted_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void Loop::Run() {
  auto next_tick = std::chrono::steady_clock::now() + period_;
  for (;;) {
    std::vector<std::function<void()>> tasks;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      posted_.wait_until(lock, next_tick, [this] { return stop_ || !tasks_.empty(); });
      if (stop_ && tasks_.empty()) return;
      tasks.swap(tasks_);
    }
    size_t in_batch = 0;
    for (auto& task : tasks) {
      task();
      task = nullptr;
      if (++in_batch % kMaxBatch == 0) hooks_.end_batch();
    }
    if (std::chrono::steady_clock::now() >= next_tick) {
      hooks_.tick();
      next_tick = std::chrono::steady_clock::now() + period_;
    }
    hooks_.end_batch();
  }
}

BlockingPool::BlockingPool(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

BlockingPool::~BlockingPool() {
  Stop();
}

void BlockingPool::Post(std::function<void()> task) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stop_) return;
  tasks_.push_back(std::move(task));
  posted_.notify_one();
}

void BlockingPool::Stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    posted_.notify_all();
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void BlockingPool::Run() {
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      posted_.wait(lock, [this] { return stop_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace shardmax
