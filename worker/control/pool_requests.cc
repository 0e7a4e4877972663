#include "worker/control/pool_requests.h"

namespace shardmax {

uint32_t PoolRequests::Take() {
  uint32_t requests = signals_.Take();
  if (desk_ != nullptr) requests |= desk_->TakeRequests();
  if (fence_ != nullptr && Clock::now() >= next_look_) {
    next_look_ = Clock::now() + fence_period_;
    if (!fence_->Check().ok()) requests |= kRequestAbandon;
  }
  if ((requests & kRequestAbandon) != 0) taken_away_ = true;
  return requests;
}

absl::Status PoolRequests::MayWrite() {
  absl::Status status;
  if (desk_ != nullptr && desk_->abandoned()) {
    status = absl::AbortedError("the server has taken the job away from this pool");
  } else if (fence_ != nullptr) {
    status = fence_->Check();
  }
  if (!status.ok()) taken_away_ = true;
  return status;
}

}  // namespace shardmax
