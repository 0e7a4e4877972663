// Runs one training job on all ranks of a launch.
#pragma once

#include "absl/status/status.h"
#include "worker/comm/communicator.h"
#include "worker/options.h"
#include "worker/stop_signals.h"

namespace shardmax {

// How a job ended, equal on every rank.
struct JobEnd {
  int exit_code = kExitSucceeded;  // As options.h.
  absl::Status status;             // OK: succeeded, or stopped on request after writing a checkpoint.
};

// Runs the job of `options` to its end. Collective: every rank calls. Errors of any rank are agreed on and come back
// on all; after an error of the communicator itself (see Communicator) the caller must abort the process.
// `local_ranks` is the number of ranks on this machine.
JobEnd RunJob(Communicator& comm, const WorkerOptions& options, int local_ranks, StopSignals& signals);

}  // namespace shardmax
