// Runs one job on all ranks.
#pragma once

#include "absl/status/status.h"
#include "worker/comm/communicator.h"
#include "worker/job_run.h"
#include "worker/options.h"

namespace shardmax {

// How a job ended, equal on every rank.
struct JobEnd {
  int exit_code = kExitSucceeded;  // As options.h.
  absl::Status status;             // OK: succeeded, or stopped on request (a training job after writing a checkpoint).
};

// Runs `job` to its end. Collective: every rank calls; a process may run one job after another. Errors of any rank are
// agreed on and come back on all; after an error of the communicator itself (see Communicator) the caller must abort
// the process.
JobEnd RunJob(Communicator& comm, const JobRun& job, const JobHost& host);

}  // namespace shardmax
