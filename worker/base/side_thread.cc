#include "worker/base/side_thread.h"

#include <utility>

namespace shardmax {

SideThread::~SideThread() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void SideThread::Start(std::function<void()> fn) {
  {
    std::lock_guard lock(mutex_);
    fn_ = std::move(fn);
  }
  changed_.notify_all();
  if (!thread_.joinable()) thread_ = std::thread([this] { Work(); });
}

void SideThread::Wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !fn_; });
}

void SideThread::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return fn_ || stopping_; });
    if (!fn_) return;
    lock.unlock();
    fn_();  // Nobody else touches it before it is done.
    lock.lock();
    fn_ = nullptr;
    changed_.notify_all();
  }
}

}  // namespace shardmax
