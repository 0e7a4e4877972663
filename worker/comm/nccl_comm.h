// Ranks with a GPU each, connected by NCCL.
#pragma once

#include <chrono>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"

namespace shardmax {

// A communicator of the same ranks as `bootstrap`, over NCCL on CUDA device `device`. Collective. `bootstrap` outlives
// it; it brings NCCL's id to all, and after a failure finds out which rank is to blame, so nothing else may call it
// while a collective runs.
//
// Its device() has collectives between buffers of the devices, for steps. The spans of its other methods are in host
// memory, so they are copied to the device and back: those are for what happens once a checkpoint or an epoch. Sums are
// NCCL's: the same on all ranks, and the same in every run on the same machines, but not added in rank order.
//
// NCCL says little about who fails. A collective that is not done within `timeout`, or that NCCL reports as failed,
// aborts NCCL's communicator and then asks the ranks, by a call of `bootstrap`, for their own stories: the error names
// the rank that failed first or does not answer. So a failure ends the call on every rank within `timeout` and the
// timeout of `bootstrap`, which should be the longer one, as ranks come to it up to `timeout` apart. Calls that do not
// match are not noticed but by that.
absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclComm(Communicator& bootstrap, int device,
                                                           std::chrono::milliseconds timeout);

}  // namespace shardmax
