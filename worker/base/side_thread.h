// A thread that does one thing at a time beside its owner.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace shardmax {

// Not thread-safe: one thread starts and waits. The thread itself begins with the first Start, and is bound to no
// processor unless the caller of that was.
class SideThread {
 public:
  SideThread() = default;
  ~SideThread();  // Waits for what was started.
  SideThread(const SideThread&) = delete;
  SideThread& operator=(const SideThread&) = delete;

  // Begins fn(), which must not throw. Requires that what was started before was waited for. What the caller wrote
  // before, fn sees; what fn wrote, the caller sees after Wait.
  void Start(std::function<void()> fn);
  // Returns once it has ended; at once if nothing was started.
  void Wait();

 private:
  void Work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> fn_;  // Guarded by mutex_, as all below. Empty: nothing to do.
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace shardmax
