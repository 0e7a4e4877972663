#include "worker/evaluation_run.h"

#include <spdlog/logger.h>

#include "worker/base/status.h"
#include "worker/data/data_root.h"
#include "worker/eval/evaluation.h"
#include "worker/eval/exchange.h"
#include "worker/job_folder.h"
#include "worker/job_setup.h"

namespace shardmax {
namespace {

// Between an evaluation and the requests and observers of the job.
class Desk final : public EvaluationHost {
 public:
  explicit Desk(const JobHost& host) : host_(host) {}

  bool abandoned() const { return (seen_ & kRequestAbandon) != 0; }

  bool StopRequested() override {
    seen_ |= host_.requests.Take();
    return (seen_ & (kRequestStop | kRequestAbandon)) != 0;
  }
  void OnProgress(int64_t done, int64_t total) override {
    for (JobObserver* observer : host_.observers) observer->OnPairs(done, total);
  }

 private:
  const JobHost& host_;
  uint32_t seen_ = 0;
};

absl::Status CheckBackend(BackendChoice backend) {
  if (backend == BackendChoice::kAuto || backend == BackendChoice::kCpu) return absl::OkStatus();
  return absl::FailedPreconditionError("--backend: evaluation jobs run on the CPU; use --backend=cpu");
}

absl::Status WriteResult(Communicator& comm, const JobRun& run, const JobHost& host, const EvaluationResult& result,
                         spdlog::logger* log) {
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm, host.requests.MayWrite()));
  absl::Status written;
  if (comm.rank() == 0) {
    written = JobFolder(run.output_folder).WriteResult(result.dump(2) + "\n");
    for (const std::string& line : ResultTable(result)) log->info("{}", line);
  }
  return AgreeOk(comm, written);
}

}  // namespace

absl::StatusOr<bool> RunEvaluation(Communicator& comm, const JobRun& run, const JobHost& host, spdlog::logger* log) {
  absl::Status ready = CheckBackend(host.backend);
  auto roots = DataRoots::Make(run.data_roots, run.base_folder);
  if (ready.ok()) ready = roots.status();
  if (ready.ok() && comm.rank() == 0) ready = JobFolder(run.output_folder).WriteSpec(run.spec);
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm, ready));
  Desk desk(host);
  const EvaluationContext context = {.comm = comm,
                                     .evaluate = run.spec.evaluate(),
                                     .roots = *roots,
                                     .threads = ThreadsOfRank(host),
                                     .processors = host.pin_threads ? host.processors : std::vector<int>(),
                                     .host = desk};
  SHARDMAX_ASSIGN_OR_RETURN(const auto result, Evaluate(context));
  if (result.has_value()) {
    SHARDMAX_RETURN_IF_ERROR(WriteResult(comm, run, host, *result, log));
    return true;
  }
  SHARDMAX_ASSIGN_OR_RETURN(const bool abandoned, AnyRank(comm, absl::OkStatus(), desk.abandoned()));
  if (abandoned) return absl::AbortedError("the job was taken from this pool");
  return false;
}

}  // namespace shardmax
