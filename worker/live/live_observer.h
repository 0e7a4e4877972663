// Who hears what trainers do, for metrics.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace shardmax {

// Any thread calls, at any time; must not block.
class LiveObserver {
 public:
  virtual ~LiveObserver() = default;
  virtual void OnTrainers(int connected) = 0;         // Of this rank, now.
  virtual void OnReceived(int64_t bytes) = 0;         // A message of a trainer.
  virtual void OnSent(int64_t bytes) = 0;             // A message to one.
  virtual void OnRefused(absl::StatusCode code) = 0;  // A Refusal, or a stream that ends with an error of ours.
  virtual void OnResent() = 0;                        // A step that was answered from memory.
  virtual void OnWaited(double seconds) = 0;          // From the end of a step to when all trainers had sent the next.
};

}  // namespace shardmax
