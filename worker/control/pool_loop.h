// What the ranks of a pool do: wait for jobs, and run them one after another.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardmax/v1/control.pb.h"
#include "worker/comm/communicator.h"
#include "worker/control/attempt_fence.h"
#include "worker/control/link_desk.h"
#include "worker/control/outcome.h"
#include "worker/folder_lock.h"
#include "worker/job_run.h"

namespace shardmax {

struct PoolLoopOptions {
  std::string pool;  // Its name.
  // Equal on every rank.
  std::chrono::milliseconds idle_period{200};     // Between two looks of an idle pool.
  std::chrono::milliseconds fence_period{1'000};  // Between two looks for a newer attempt, while a job runs.
  std::chrono::milliseconds folder_wait{60'000};  // For an older attempt to leave the job's folder.
};

// What a rank brings. Borrows; all outlive the loop.
struct PoolHost {
  JobHost job;               // For every job. Its `requests` are the signals: kRequestStop tells the pool to leave.
  LinkDesk* desk = nullptr;  // On rank 0, null elsewhere.
  std::function<void()> after_turn = [] {};  // Called now and then while no job runs.
};

// All ranks call the same collectives: while idle they meet every idle_period, and sleep in between, so that a pool
// without a job needs next to no processor and meets no deadline.
class PoolLoop {
 public:
  PoolLoop(Communicator& comm, PoolLoopOptions options, PoolHost host);

  // Runs jobs until a rank is told to leave (OK), the desk fails (its failure), or the communicator breaks (its error).
  // Rank 0 has told the desk how the last job ended. Collective; all ranks return alike.
  absl::Status Run();

 private:
  // What a rank says when all meet.
  struct Notice {
    int32_t leaves = 0;
    int32_t order = 0;  // Of rank 0: an Order or an Entry.
  };
  struct Meeting {
    bool leaves = false;  // Some rank is told to leave.
    int32_t order = 0;
  };
  enum Order : int32_t { kWait, kRun, kFail };
  enum Entry : int32_t { kWaiting, kEntered, kRefused };

  absl::Status RunJobs();
  absl::StatusOr<Meeting> Meet(int32_t order);
  // Waits for something to do. The job; or none if there is none yet or the pool is to end (`ends`).
  absl::StatusOr<std::optional<shardmax::v1::Assignment>> NextJob(bool& ends);
  absl::Status RunJobOf(const shardmax::v1::Assignment& assignment);
  // Takes the job's folder, once an older attempt has left it. Returns how the job ends if that fails.
  absl::StatusOr<std::optional<JobEnding>> EnterFolder(const shardmax::v1::Assignment& assignment);
  // Rank 0's part of that: one try.
  Entry TryFolder(const shardmax::v1::Assignment& assignment, bool last_try, JobEnding& ending);
  JobEnding RunInFolder(const shardmax::v1::Assignment& assignment);

  Communicator& comm_;
  const PoolLoopOptions options_;
  const PoolHost host_;
  // Of the job that runs, on rank 0.
  std::optional<AttemptFence> fence_;
  std::optional<FolderLock> lock_;
};

}  // namespace shardmax
