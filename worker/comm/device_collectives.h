// Collectives between buffers in the memory of devices, which the host enqueues and does not wait for.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "worker/base/device_handles.h"

namespace shardmax {

// What a communicator between devices offers beside its collectives of host memory. Calls are collective, counted by
// the communicator's stats (their seconds are those of enqueuing), and in one order with its other calls. All are in
// place: a rank's own block lies where the result has it. Pointers are to memory of the communicator's device.
//
// Errors are those of Communicator, and break it in the same way: what waits on the device is then aborted, and what
// was enqueued behind it runs on whatever the buffers hold.
class DeviceCollectives {
 public:
  virtual ~DeviceCollectives() = default;

  // blocks [N * block_bytes]: the block of this rank reaches all ranks.
  virtual absl::Status AllGather(std::byte* blocks, size_t block_bytes, DeviceStream stream) = 0;
  // values [count] become their sum over the ranks.
  virtual absl::Status AllReduceSum(float* values, size_t count, DeviceStream stream) = 0;
  // blocks [N * block_floats]: the block of this rank becomes its sum over the ranks; the others are then anything.
  virtual absl::Status ReduceScatterSum(float* blocks, size_t block_floats, DeviceStream stream) = 0;

  // Waits until `event` has come, which follows everything that was enqueued since the last wait. DeadlineExceeded
  // after the communicator's timeout, naming the first collective that has not finished; Unavailable for what NCCL
  // reports in the meantime.
  virtual absl::Status Await(DeviceEvent event) = 0;

  // Breaks the communicator with `status`, an error of this rank that leaves it unable to take part: the peers learn it
  // as the cause. Returns what this rank should say.
  virtual absl::Status Break(const absl::Status& status) = 0;
};

}  // namespace shardmax
