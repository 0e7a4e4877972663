// A request to stop, as a launcher or a person sends it.
#pragma once

#include "worker/job_events.h"

namespace shardmax {

// Holds SIGTERM and SIGINT back, so that they end no step in the middle, and tells when one is there. Make it before
// any other thread starts, as threads inherit the mask. One object a process; one thread calls.
class StopSignals final : public JobRequests {
 public:
  StopSignals();

  // Whether a signal has come since the object was made. Does not block.
  bool Pending();

  // kRequestStop from the first signal on.
  uint32_t Take() override { return Pending() ? kRequestStop : 0; }

 private:
  bool seen_ = false;
};

}  // namespace shardmax
