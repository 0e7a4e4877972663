// Runs an evaluation job on all ranks.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"
#include "worker/job_run.h"

namespace spdlog {
class logger;
}  // namespace spdlog

namespace shardmax {

// Runs the evaluation of `run`, whose folder is open, and leaves job.json and result.json there and a table in `log`
// (null but on rank 0). False if it was asked to stop: then there is no result, and the next run begins anew.
// Collective; all ranks return alike. Aborted: the job is another's now.
absl::StatusOr<bool> RunEvaluation(Communicator& comm, const JobRun& run, const JobHost& host, spdlog::logger* log);

}  // namespace shardmax
