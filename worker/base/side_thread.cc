#include "worker/base/side_thread.h"

#include <utility>

namespace shardmax {

SideThread::Task::Task(SideThread& side, std::function<void()> fn) : side_(side) {
  {
    const std::lock_guard lock(side_.mutex_);
    side_.fn_ = std::move(fn);
    side_.thrown_ = nullptr;
  }
  side_.changed_.notify_all();
  if (!side_.thread_.joinable()) side_.thread_ = std::thread([&side] { side.Work(); });
}

void SideThread::Task::Join() {
  std::unique_lock lock(side_.mutex_);
  side_.changed_.wait(lock, [this] { return !side_.fn_; });
}

void SideThread::Task::Wait() {
  Join();
  const std::lock_guard lock(side_.mutex_);
  if (side_.thrown_ != nullptr) std::rethrow_exception(std::exchange(side_.thrown_, nullptr));
}

SideThread::~SideThread() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void SideThread::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return fn_ || stopping_; });
    if (!fn_) return;
    std::exception_ptr thrown;
    lock.unlock();  // The maker leaves fn_ alone until it is empty.
    try {
      fn_();
    } catch (...) {
      thrown = std::current_exception();
    }
    lock.lock();
    fn_ = nullptr;
    thrown_ = thrown;
    changed_.notify_all();
  }
}

}  // namespace shardmax
