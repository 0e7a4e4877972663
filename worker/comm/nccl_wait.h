// Waiting for NCCL and for devices that NCCL works on, with a deadline.
#pragma once

#include <nccl.h>

#include <chrono>

#include "absl/status/status.h"
#include "worker/base/device_handles.h"

namespace shardmax {

// Unavailable if a peer or the network is to blame, else Internal. `comm` may be null.
absl::Status NcclError(const char* call, ncclResult_t code, ncclComm_t comm);

// The deadline counts from the beginning, over all waits of one object. DeadlineExceeded when it has passed.
class NcclWait {
 public:
  explicit NcclWait(std::chrono::milliseconds timeout)
      : timeout_(timeout), deadline_(std::chrono::steady_clock::now() + timeout) {}

  // Until NCCL is done with the call that returned `result`: what it started is on its stream then.
  absl::Status ForCall(const char* call, ncclResult_t result, ncclComm_t comm) const;
  // Until `event` has come, or NCCL reports an asynchronous error.
  absl::Status ForEvent(DeviceEvent event, ncclComm_t comm) const;

 private:
  bool is_late() const { return std::chrono::steady_clock::now() >= deadline_; }
  absl::Status Late() const;

  std::chrono::milliseconds timeout_;
  std::chrono::steady_clock::time_point deadline_;
};

}  // namespace shardmax
