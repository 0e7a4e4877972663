// A thread that writes this rank's file of a checkpoint from a snapshot.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "worker/checkpoint/checkpoint.h"
#include "worker/shard_snapshot.h"

namespace shardmax {

// Begins to write when it is made. The thread gives way to those that compute: it takes what they leave, and little
// more. When it goes before the file is written, the file is given up.
class BackgroundWrite {
 public:
  // Takes over both.
  BackgroundWrite(std::unique_ptr<CheckpointWrite> write, ShardSnapshot snapshot);
  ~BackgroundWrite();
  BackgroundWrite(const BackgroundWrite&) = delete;
  BackgroundWrite& operator=(const BackgroundWrite&) = delete;

  // Steps done of the checkpoint.
  int64_t step() const { return write_->step(); }

  // Whether the file is written, or has failed. Does not wait.
  bool done() const { return done_; }

  // Waits for that. Then the checkpoint is the caller's to finish.
  CheckpointWrite& Await();

 private:
  void Work();

  const std::unique_ptr<CheckpointWrite> write_;
  ShardSnapshot snapshot_;
  std::atomic<bool> given_up_ = false;
  std::atomic<bool> done_ = false;
  std::thread thread_;
};

}  // namespace shardmax
