// A deadline for calls that cannot be told one.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace shardmax {

// Ends this process with exit code 1 if it lives longer than `limit`, after a line on stderr: "WHAT did not end within
// N s". For a call of a library that may wait for ever, of which nothing can be saved.
class Watchdog {
 public:
  Watchdog(std::chrono::milliseconds limit, std::string what);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  bool has_ended_ = false;  // Guarded by mutex_.
  std::thread thread_;
};

}  // namespace shardmax
