// What a job that runs on a pool is asked, on each rank.
#pragma once

#include <chrono>

#include "worker/control/attempt_fence.h"
#include "worker/control/link_desk.h"
#include "worker/job_events.h"

namespace shardmax {

// Signals on every rank; on rank 0 also what the server asks, and whether a newer attempt has come, which it looks for
// at most once in `fence_period`. Of one job; borrows everything.
class PoolRequests final : public JobRequests {
 public:
  // `desk` and `fence` are null but on rank 0.
  PoolRequests(JobRequests& signals, LinkDesk* desk, const AttemptFence* fence, std::chrono::milliseconds fence_period)
      : signals_(signals), desk_(desk), fence_(fence), fence_period_(fence_period) {}

  uint32_t Take() override;
  absl::Status MayWrite() override;

  // Whether the job is another's, as far as this rank has noticed.
  bool taken_away() const { return taken_away_; }

 private:
  using Clock = std::chrono::steady_clock;

  JobRequests& signals_;
  LinkDesk* desk_;
  const AttemptFence* fence_;
  std::chrono::milliseconds fence_period_;
  Clock::time_point next_look_ = Clock::now();
  bool taken_away_ = false;
};

}  // namespace shardmax
