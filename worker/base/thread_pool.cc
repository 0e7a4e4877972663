#include "worker/base/thread_pool.h"

#include <optional>
#include <utility>

#include "worker/base/processors.h"
#include "worker/base/shard_range.h"

namespace shardmax {

ThreadPool::ThreadPool(int threads, std::vector<int> processors) : processors_(std::move(processors)) {
  if (static_cast<int>(processors_.size()) != threads) processors_.clear();
  workers_.reserve(static_cast<size_t>(threads) - 1);
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Work(i); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(absl::FunctionRef<void(int)> fn) {
  // The caller is bound for this call only: threads that it starts elsewhere would inherit the binding.
  std::optional<ScopedPin> pin;
  if (pinned()) pin.emplace(processors_[0]);
  {
    std::lock_guard lock(mutex_);
    fn_ = &fn;
    running_ = static_cast<int>(workers_.size());
    ++round_;
  }
  start_.notify_all();
  fn(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return running_ == 0; });
}

void ThreadPool::ForEachPart(int64_t count, absl::FunctionRef<void(int64_t, int64_t)> fn) {
  Run([&](int thread) {
    const Range part = BalancedPart(count, thread, threads());
    if (part.count > 0) fn(part.first, part.end());
  });
}

void ThreadPool::Work(int index) {
  std::optional<ScopedPin> pin;
  if (pinned()) pin.emplace(processors_[index]);
  int64_t seen_round = 0;
  while (true) {
    const absl::FunctionRef<void(int)>* fn = nullptr;
    {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return stopping_ || round_ != seen_round; });
      if (stopping_) return;
      seen_round = round_;
      fn = fn_;
    }
    (*fn)(index);
    std::lock_guard lock(mutex_);
    if (--running_ == 0) done_.notify_one();
  }
}

}  // namespace shardmax
