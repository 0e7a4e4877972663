#include "worker/job_runner.h"

#include <spdlog/logger.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/evaluation_run.h"
#include "worker/folder_lock.h"
#include "worker/job_folder.h"
#include "worker/training_job.h"

namespace shardmax {
namespace {

// How long a launch waits for the one before it to leave the folder: its ranks may outlive mpirun by a moment.
constexpr int kFolderWaitMs = 3000;

// Whether spec and command line go together. The same on every rank.
absl::Status CheckRequest(const Communicator& comm, const JobRun& job, const JobHost& host) {
  if (!job.spec.has_train()) return absl::OkStatus();
  std::vector<std::string> mistakes;
  const auto shard = ShardOfRank(job.spec.train().num_classes(), comm.rank(), comm.size());
  if (!shard.ok()) mistakes.push_back(Message(shard.status()));
  if (host.backend == BackendChoice::kCuda && host.device == nullptr) {
    mistakes.emplace_back(
        "--backend=cuda: this build has no CUDA engine; build with -DSHARDMAX_CUDA=ON where nvcc and NCCL are "
        "installed, or use --backend=cpu");
  }
  if (mistakes.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrJoin(mistakes, "\n"));
}

// A job's folder, in use. Empty but on rank 0.
struct OpenedFolder {
  std::optional<FolderLock> lock;
  std::shared_ptr<spdlog::logger> log;
};

// Takes the lock of the folder, unless the caller has it or the file system knows none: that is left to people.
absl::Status Lock(const JobRun& job, std::optional<FolderLock>& lock) {
  if (job.folder_is_locked) return absl::OkStatus();
  auto taken = FolderLock::Take(job.output_folder, kFolderWaitMs, fmt::format("job {}", job.spec.name()));
  if (absl::IsUnimplemented(taken.status())) return absl::OkStatus();
  if (!taken.ok()) return Annotate(taken.status(), "--output");
  lock.emplace(*std::move(taken));
  return absl::OkStatus();
}

absl::StatusOr<OpenedFolder> OpenOnRank0(const JobRun& job, const JobHost& host) {
  const JobFolder folder(job.output_folder);
  OpenedFolder opened;
  SHARDMAX_RETURN_IF_ERROR(folder.Make());
  SHARDMAX_RETURN_IF_ERROR(Lock(job, opened.lock));
  if (!job.resume) SHARDMAX_RETURN_IF_ERROR(folder.CheckUnused());
  SHARDMAX_ASSIGN_OR_RETURN(opened.log, folder.OpenLog(host.log_sinks));
  return opened;
}

// Collective. FailedPrecondition: another process is in the folder, or it holds a job and `job` does not resume.
absl::StatusOr<OpenedFolder> OpenFolder(Communicator& comm, const JobRun& job, const JobHost& host) {
  absl::StatusOr<OpenedFolder> opened = OpenedFolder();
  if (comm.rank() == 0) opened = OpenOnRank0(job, host);
  SHARDMAX_RETURN_IF_ERROR(BroadcastStatus(comm, opened.status(), 0));
  return opened;
}

// FailedPrecondition before the first step: what was asked for cannot be had.
JobEnd Refused(const absl::Status& status) {
  return {absl::IsFailedPrecondition(status) ? kExitInvalidUse : kExitJobFailed, status};
}

JobEnd Ended(const absl::StatusOr<bool>& finished) {
  if (!finished.ok()) return {kExitJobFailed, finished.status()};
  return {*finished ? kExitSucceeded : kExitStopped, absl::OkStatus()};
}

JobEnd RunTraining(Communicator& comm, const JobRun& job, const JobHost& host, spdlog::logger* log) {
  TrainingJob training(comm, job, host, log);
  if (const absl::Status prepared = training.Prepare(); !prepared.ok()) return Refused(prepared);
  return Ended(training.Run());
}

// The last words in log.txt.
void LogEnd(spdlog::logger& log, const JobEnd& end) {
  if (absl::IsAborted(end.status)) {
    log.warn("left without a checkpoint: {}", Message(end.status));
  } else if (!end.status.ok()) {
    log.error("the job failed: {}", Message(end.status));
  } else {
    log.info(end.exit_code == kExitSucceeded ? "succeeded" : "stopped on request; go on with --resume");
  }
}

}  // namespace

JobEnd RunJob(Communicator& comm, const JobRun& job, const JobHost& host) {
  if (const absl::Status request = CheckRequest(comm, job, host); !request.ok()) return Refused(request);
  const absl::StatusOr<OpenedFolder> folder = OpenFolder(comm, job, host);
  if (!folder.ok()) return Refused(folder.status());
  spdlog::logger* log = folder->log.get();
  const JobEnd end =
      job.spec.has_evaluate() ? Ended(RunEvaluation(comm, job, host, log)) : RunTraining(comm, job, host, log);
  if (log != nullptr) LogEnd(*log, end);
  return end;
}

}  // namespace shardmax
