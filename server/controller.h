// The control plane's mind: what each request, each message of a pool and the passing of time do to jobs and pools.
//
// One thread calls, in batches: any number of calls, then EndBatch(), which makes their changes durable with one
// commit. Whatever others may see of a change (an answer, a message to a pool, a notice to watchers) must wait for
// that: put it into AfterCommit(). Time is told, never asked, so that tests need not wait.
//
// If a commit fails, the batch's changes are undone, its answers are errors, and the server does what it does after a
// restart: it reads its jobs anew and has every pool connect again.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/job_table.h"
#include "server/moment.h"
#include "shardmax/v1/control.pb.h"

namespace shardmax {

// The server's end of the stream of one pool. Any thread calls; neither blocks.
class PoolLink {
 public:
  virtual ~PoolLink() = default;
  virtual void Send(const shardmax::v1::ServerMessage& message) = 0;
  // Ends the stream with this status. What was sent before is delivered first, if the peer reads. Again: no effect.
  virtual void Close(const absl::Status& status) = 0;
};

// Hears of changes once they are durable, on the controller's thread.
class ControllerObserver {
 public:
  virtual ~ControllerObserver() = default;
  virtual void JobChanged(const shardmax::v1::Job& job) = 0;     // State, reason or wishes; also a new job.
  virtual void JobProgressed(const shardmax::v1::Job& job) = 0;  // Several times a second.
  virtual void JobDeleted(const std::string& id) = 0;
  virtual void LinesAdded(const std::string& id) = 0;
  virtual void PoolsChanged() = 0;
  virtual void PoolNews(const std::string& news) = 0;  // A line for the server's log.
  virtual void Submitted() = 0;
  virtual void Assigned(double waited_s) = 0;
  // "pool_failed", "pool_lost" or "interrupted".
  virtual void Restarted(const std::string& cause) = 0;
};

struct ControllerOptions {
  std::string jobs_folder;
  std::vector<std::string> data_roots;  // Of assignments.
  std::chrono::milliseconds heartbeat{2000};
  std::chrono::milliseconds pool_grace{30'000};
  int max_pools = 1000;
};

class Controller {
 public:
  // Reads the jobs; pools of those that run have the grace from `now` on to connect.
  static absl::StatusOr<std::unique_ptr<Controller>> Start(ControllerOptions options, std::unique_ptr<JobStore> store,
                                                           ControllerObserver& observer, const Moment& now);

  // Jobs. `record` is checked and resolved, with name, owner, spec, key and digest. The job that was made before with
  // the same key, or AlreadyExists if that one was of another spec.
  absl::StatusOr<shardmax::v1::Job> Submit(JobRecord record, const Moment& now);
  // The job of a key; NotFound if there is none yet.
  absl::StatusOr<shardmax::v1::Job> FindSubmit(const JobRecord& record);
  absl::StatusOr<JobRecord> Find(const std::string& job);
  absl::StatusOr<shardmax::v1::ListJobsResponse> List(const shardmax::v1::ListJobsRequest& request);
  absl::StatusOr<shardmax::v1::Job> Stop(const JobRecord& record, const std::string& by, const Moment& now);
  absl::Status Delete(const JobRecord& record);
  absl::Status CheckpointNow(const JobRecord& record);
  absl::StatusOr<std::vector<shardmax::v1::LogLine>> Lines(const JobRecord& record, int64_t after, int32_t limit);
  absl::StatusOr<std::map<shardmax::v1::JobState, int64_t>> CountByState();

  // Pools.
  void PoolSaid(const std::shared_ptr<PoolLink>& link, const shardmax::v1::PoolMessage& message, const Moment& now);
  void PoolBroke(const std::shared_ptr<PoolLink>& link, const Moment& now);
  std::vector<shardmax::v1::Pool> Pools() const;

  // Notices silent pools and the end of graces. Call a few times in the shortest of the times in the options.
  void Tick(const Moment& now);

  // Places jobs, commits, and runs what waits for the commit, with its status.
  void EndBatch(const Moment& now);
  void AfterCommit(std::function<void(const absl::Status&)> effect) { effects_.push_back(std::move(effect)); }

  // Ends every stream of a pool, and refuses later calls; jobs go on. Writes progress.
  void Shutdown(const Moment& now);

 private:
  struct Pool {
    PoolLaunch launch;
    std::shared_ptr<PoolLink> link;  // Null: lost.
    shardmax::v1::PoolHello hello;
    std::string job;        // Id of what it runs; empty: idle.
    int32_t attempt = 0;    // Of `job`.
    bool abandons = false;  // It was told to abandon `job`, which is another's.
    bool leaving = false;   // It ends, and gets no other job.
    Moment abandoned;
    Moment connected;
    Moment last_heard;
    Moment lost;
  };

  Controller(ControllerOptions options, std::unique_ptr<JobStore> store, ControllerObserver& observer);
  absl::Status Load(const Moment& now);

  // Jobs.
  absl::Status Available() const;
  void Check(const absl::Status& written);
  void Save(const JobRecord& record);
  void Say(const JobRecord& record, const std::string& level, const std::string& text, const Moment& now);
  void End(JobRecord record, AttemptEnd end, const std::string& reason, const Moment& now);
  void PlaceJobs(const Moment& now);

  // Pools.
  Pool* PoolOf(const PoolLink* link);
  Pool* ConnectedPool(const std::string& name);
  bool AdmitHello(const std::shared_ptr<PoolLink>& link, const shardmax::v1::PoolHello& hello, const Moment& now);
  void Hello(const std::shared_ptr<PoolLink>& link, const shardmax::v1::PoolHello& hello, const Moment& now);
  bool AdoptRunning(Pool& pool, const shardmax::v1::RunningJob& running, const Moment& now);
  void LoseJob(Pool& pool, AttemptEnd end, const std::string& reason, const Moment& now);
  void Progressed(Pool& pool, const shardmax::v1::Progress& progress);
  void Logged(Pool& pool, const shardmax::v1::WorkerLog& log, const Moment& now);
  void CheckpointWritten(Pool& pool, const shardmax::v1::CheckpointWritten& written);
  void Ended(Pool& pool, const shardmax::v1::JobEnded& ended, const Moment& now);
  void Abandon(Pool& pool, const std::string& job, int32_t attempt);
  void Send(const Pool& pool, shardmax::v1::ServerMessage message);
  void SendStop(const Pool& pool);
  void Close(const std::shared_ptr<PoolLink>& link, absl::Status status);
  void PoolsChanged();
  void Tell(std::string news);

  ControllerOptions options_;
  JobTable jobs_;
  ControllerObserver& observer_;
  std::map<std::string, Pool> pools_;
  std::vector<std::function<void(const absl::Status&)>> effects_;
  absl::Status failed_;  // The first write of the batch that failed.
  bool loaded_ = false;
  bool shut_down_ = false;
  bool pools_changed_ = false;
};

}  // namespace shardmax
