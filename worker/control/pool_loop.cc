#include "worker/control/pool_loop.h"

#include <algorithm>
#include <span>
#include <thread>
#include <utility>

#include "worker/base/status.h"
#include "worker/control/job_reporter.h"
#include "worker/control/pool_requests.h"
#include "worker/job_runner.h"

namespace shardmax {

using Clock = std::chrono::steady_clock;

PoolLoop::PoolLoop(Communicator& comm, PoolLoopOptions options, PoolHost host)
    : comm_(comm), options_(std::move(options)), host_(std::move(host)) {}

absl::StatusOr<PoolLoop::Meeting> PoolLoop::Meet(int32_t order) {
  const Notice mine = {.leaves = host_.job.requests.Take() != 0 ? 1 : 0, .order = order};
  std::vector<Notice> all(comm_.size());
  SHARDMAX_RETURN_IF_ERROR(comm_.AllGather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all))));
  const bool leaves = std::any_of(all.begin(), all.end(), [](const Notice& notice) { return notice.leaves != 0; });
  return Meeting{.leaves = leaves, .order = all[0].order};
}

absl::Status PoolLoop::Run() {
  const absl::Status status = RunJobs();
  // Of a job that has not begun, or is over, nothing is left to say.
  if (!status.ok() && host_.desk != nullptr) {
    host_.desk->End(v1::JobEnded::OUTCOME_POOL_FAILED, Message(status), /*leaving=*/true);
  }
  return status;
}

absl::Status PoolLoop::RunJobs() {
  for (bool ends = false;;) {
    SHARDMAX_ASSIGN_OR_RETURN(const auto assignment, NextJob(ends));
    host_.after_turn();
    if (ends) return absl::OkStatus();
    if (assignment.has_value()) SHARDMAX_RETURN_IF_ERROR(RunJobOf(*assignment));
  }
}

absl::StatusOr<std::optional<v1::Assignment>> PoolLoop::NextJob(bool& ends) {
  std::optional<v1::Assignment> assignment;
  Order order = kWait;
  if (host_.desk == nullptr) {
    std::this_thread::sleep_for(options_.idle_period);
  } else {
    assignment = host_.desk->AwaitAssignment(options_.idle_period);
    if (assignment.has_value()) order = kRun;
    if (!host_.desk->failure().ok()) order = kFail;
  }
  SHARDMAX_ASSIGN_OR_RETURN(const Meeting meeting, Meet(order));
  ends = meeting.leaves;
  if (meeting.order == kFail) {
    SHARDMAX_RETURN_IF_ERROR(
        BroadcastStatus(comm_, host_.desk != nullptr ? host_.desk->failure() : absl::OkStatus(), 0));
  }
  if (meeting.leaves && assignment.has_value()) {
    host_.desk->End(v1::JobEnded::OUTCOME_INTERRUPTED, "the pool was told to leave before the job began",
                    /*leaving=*/true);
  }
  if (meeting.leaves || meeting.order != kRun) return std::nullopt;
  SHARDMAX_ASSIGN_OR_RETURN(const std::string bytes,
                            BroadcastString(comm_, assignment.value_or(v1::Assignment()).SerializeAsString(), 0));
  v1::Assignment shared;
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(
      comm_, shared.ParseFromString(bytes) ? absl::OkStatus() : absl::InternalError("the assignment is garbled")));
  return shared;
}

absl::Status PoolLoop::RunJobOf(const v1::Assignment& assignment) {
  SHARDMAX_ASSIGN_OR_RETURN(auto refused, EnterFolder(assignment));
  JobEnding ending = refused.has_value() ? *refused : RunInFolder(assignment);
  lock_.reset();
  fence_.reset();
  // A broken communicator returns its error again; a whole one finds every rank here.
  const absl::Status whole = comm_.Barrier();
  ending.broken = !whole.ok();
  if (host_.desk != nullptr) {
    ending.stop_requested = host_.desk->stop_requested();
    const Outcome outcome = OutcomeOf(ending);
    // A signal that came too late for the job still ends the pool.
    host_.desk->End(outcome.outcome, outcome.reason, outcome.leaving || host_.job.requests.Take() != 0);
  }
  return whole;
}

PoolLoop::Entry PoolLoop::TryFolder(const v1::Assignment& assignment, bool last_try, JobEnding& ending) {
  if (host_.desk->stop_requested()) {
    ending.stopped = true;
    return kRefused;
  }
  if (!fence_.has_value()) {
    fence_.emplace(assignment.folder(), assignment.attempt());
    ending.status = fence_->Announce();
  } else {
    ending.status = fence_->Check();
  }
  if (host_.desk->abandoned()) ending.status = absl::AbortedError("the server has taken the job away from this pool");
  if (!ending.status.ok()) {
    ending.taken_away = absl::IsAborted(ending.status);
    return kRefused;
  }
  auto lock = FolderLock::Take(assignment.folder(), 0, fmt::format("pool {}", options_.pool));
  const absl::Status locked = lock.status();
  if (locked.ok()) lock_.emplace(*std::move(lock));
  // A file system without locks: the numbers of the attempts still keep them apart.
  if (locked.ok() || absl::IsUnimplemented(locked)) return kEntered;
  const bool busy = absl::IsFailedPrecondition(locked);
  if (busy && !last_try) return kWaiting;
  ending.status = busy ? Error(absl::StatusCode::kUnavailable, "{}, for {} s already", Message(locked),
                               options_.folder_wait.count() / 1000)
                       : locked;
  return kRefused;
}

absl::StatusOr<std::optional<JobEnding>> PoolLoop::EnterFolder(const v1::Assignment& assignment) {
  constexpr std::chrono::milliseconds kPause(50);
  const auto deadline = Clock::now() + options_.folder_wait;
  for (;; std::this_thread::sleep_for(kPause)) {
    JobEnding ending;
    const Entry mine =
        host_.desk != nullptr ? TryFolder(assignment, Clock::now() >= deadline, ending) : Entry::kWaiting;
    SHARDMAX_ASSIGN_OR_RETURN(const Meeting meeting, Meet(mine));
    if (meeting.order == kEntered) return std::nullopt;
    if (meeting.order == kRefused) return ending;
    if (meeting.leaves) {
      ending.stopped = true;
      return ending;
    }
  }
}

JobEnding PoolLoop::RunInFolder(const v1::Assignment& assignment) {
  JobRun run = {.spec = assignment.spec(),
                .id = assignment.job(),
                .attempt = assignment.attempt(),
                .output_folder = assignment.folder(),
                .resume = assignment.attempt() > 1};
  run.data_roots.assign(assignment.data_roots().begin(), assignment.data_roots().end());
  run.folder_is_locked = true;
  PoolRequests requests(host_.job.requests, host_.desk, fence_.has_value() ? &*fence_ : nullptr, options_.fence_period);
  JobHost host = {.backend = host_.job.backend,
                  .device = host_.job.device,
                  .processors = host_.job.processors,
                  .threads = host_.job.threads,
                  .pin_threads = host_.job.pin_threads,
                  .requests = requests,
                  .observers = host_.job.observers,
                  .live = host_.job.live,
                  .log_sinks = host_.job.log_sinks};
  std::optional<JobReporter> reporter;
  if (host_.desk != nullptr) {
    host.observers.push_back(&reporter.emplace(*host_.desk, assignment.folder()));
    host.log_sinks.push_back(NewDeskSink(*host_.desk));
  }
  const JobEnd end = RunJob(comm_, run, host);
  return {.status = end.status, .stopped = end.exit_code == kExitStopped, .taken_away = requests.taken_away()};
}

}  // namespace shardmax
