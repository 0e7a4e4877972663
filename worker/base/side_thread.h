// A thread that does one thing at a time beside its owner.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace shardmax {

// Not thread-safe: one thread makes its tasks. The thread itself begins with the first of them, and is bound to no
// processor unless the maker of that was.
class SideThread {
 public:
  // What it does, from when this is made until it has ended. One at a time; what the maker wrote before, `fn` sees, and
  // what `fn` wrote, the maker sees after Wait.
  class Task {
   public:
    Task(SideThread& side, std::function<void()> fn);
    ~Task() { Join(); }
    Task(const Task&) = delete;
    Task& operator=(const Task&) = delete;

    // Returns once it has ended, and throws what it threw.
    void Wait();

   private:
    void Join();

    SideThread& side_;
  };

  SideThread() = default;
  ~SideThread();
  SideThread(const SideThread&) = delete;
  SideThread& operator=(const SideThread&) = delete;

 private:
  void Work();

  std::thread thread_;
  std::mutex mutex_;  // Of all below.
  std::condition_variable changed_;
  std::function<void()> fn_;  // Empty: nothing to do.
  std::exception_ptr thrown_;
  bool stopping_ = false;
};

}  // namespace shardmax
