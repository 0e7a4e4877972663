// The half of the controller that talks with pools.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "server/controller.h"
#include "server/pool_message_check.h"
#include "worker/base/status.h"
#include "worker/data/quote.h"
#include "worker/spec/text.h"

namespace shardmax {
namespace {

constexpr size_t kMaxLineBytes = 4096 - 8;  // Room for the end of a line that is cut, "\\x01..." at most.
// A stream that is silent for so many heartbeats is broken; a launch that was heard within so many is alive.
constexpr int kSilentHeartbeats = 3;
constexpr int kAliveHeartbeats = 2;
// A pool says so when it has abandoned a job. One that says nothing for so long is asked anew what it does.
constexpr int kAbandonHeartbeats = 10;

double Seconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

std::string LevelOfLine(const std::string& level) {
  return level == "warning" || level == "error" ? level : "info";
}

AttemptEnd EndOf(v1::JobEnded::Outcome outcome) {
  switch (outcome) {
    case v1::JobEnded::OUTCOME_SUCCEEDED:
      return AttemptEnd::kSucceeded;
    case v1::JobEnded::OUTCOME_STOPPED:
      return AttemptEnd::kStopped;
    case v1::JobEnded::OUTCOME_JOB_FAILED:
      return AttemptEnd::kJobFailed;
    case v1::JobEnded::OUTCOME_INTERRUPTED:
      return AttemptEnd::kInterrupted;
    default:  // Also a superseded attempt that nothing of this server has superseded.
      return AttemptEnd::kPoolFailed;
  }
}

}  // namespace

Controller::Pool* Controller::PoolOf(const PoolLink* link) {
  for (auto& [name, pool] : pools_) {
    if (pool.link.get() == link) return &pool;
  }
  return nullptr;
}

Controller::Pool* Controller::ConnectedPool(const std::string& name) {
  const auto pool = pools_.find(name);
  return pool != pools_.end() && pool->second.link ? &pool->second : nullptr;
}

void Controller::PoolsChanged() {
  pools_changed_ = true;
}

void Controller::Tell(std::string news) {
  AfterCommit([this, news = std::move(news)](const absl::Status& committed) {
    if (committed.ok()) observer_.PoolNews(news);
  });
}

void Controller::Send(const Pool& pool, v1::ServerMessage message) {
  AfterCommit([link = pool.link, message = std::move(message)](const absl::Status& committed) {
    if (committed.ok() && link) link->Send(message);
  });
}

void Controller::Close(const std::shared_ptr<PoolLink>& link, absl::Status status) {
  AfterCommit([link, status = std::move(status)](const absl::Status& /*committed*/) { link->Close(status); });
}

void Controller::SendStop(const Pool& pool) {
  v1::ServerMessage message;
  message.mutable_stop()->set_job(pool.job);
  message.mutable_stop()->set_attempt(pool.attempt);
  Send(pool, std::move(message));
}

void Controller::Abandon(Pool& pool, const std::string& job, int32_t attempt) {
  v1::ServerMessage message;
  message.mutable_abandon()->set_job(job);
  message.mutable_abandon()->set_attempt(attempt);
  Send(pool, std::move(message));
}

void Controller::PoolSaid(const std::shared_ptr<PoolLink>& link, const v1::PoolMessage& message, const Moment& now) {
  if (const absl::Status available = Available(); !available.ok()) return Close(link, available);
  if (message.has_hello()) return Hello(link, message.hello(), now);
  Pool* pool = PoolOf(link.get());
  if (pool == nullptr) {
    return Close(link, Error(absl::StatusCode::kFailedPrecondition, "the first message of a stream must be hello"));
  }
  pool->last_heard = now;
  switch (message.kind_case()) {
    case v1::PoolMessage::kProgress:
      return Progressed(*pool, message.progress());
    case v1::PoolMessage::kLog:
      return Logged(*pool, message.log(), now);
    case v1::PoolMessage::kCheckpoint:
      return CheckpointWritten(*pool, message.checkpoint());
    case v1::PoolMessage::kEnded:
      return Ended(*pool, message.ended(), now);
    case v1::PoolMessage::kGoodbye:
      if (!pool->job.empty() && !pool->abandons) {
        LoseJob(*pool, AttemptEnd::kInterrupted, message.goodbye().reason(), now);
      }
      Tell(fmt::format("pool {} left: {}", pool->launch.name, Printable(message.goodbye().reason(), kMaxLineBytes)));
      pools_.erase(pool->launch.name);
      PoolsChanged();
      return Close(link, absl::OkStatus());
    default:  // A heartbeat, or a message of a newer worker.
      return;
  }
}

bool Controller::AdmitHello(const std::shared_ptr<PoolLink>& link, const v1::PoolHello& hello, const Moment& now) {
  if (const absl::Status sound = CheckHello(hello); !sound.ok()) {
    Close(link, sound);
    return false;
  }
  if (PoolOf(link.get()) != nullptr) {
    Close(link, InvalidArgument("a second hello in one stream"));
    return false;
  }
  const auto known = pools_.find(hello.pool());
  if (known == pools_.end()) {
    if (pools_.size() < static_cast<size_t>(options_.max_pools)) return true;
    Close(link,
          Error(absl::StatusCode::kResourceExhausted, "the server has {} pools already, its limit", pools_.size()));
    return false;
  }
  Pool& pool = known->second;
  if (!pool.link) return true;
  const auto silence = now.steady - pool.last_heard.steady;
  if (pool.launch.session != hello.session() && silence <= kAliveHeartbeats * options_.heartbeat) {
    Close(link, Error(absl::StatusCode::kAlreadyExists,
                      "a pool named {} is connected already ({} ranks, heard {:.1f} s ago): give this one another "
                      "name with --pool, or end the other",
                      hello.pool(), pool.launch.ranks, Seconds(silence)));
    return false;
  }
  Close(pool.link, Error(absl::StatusCode::kAborted, "pool {} has connected anew", hello.pool()));
  return true;
}

void Controller::Hello(const std::shared_ptr<PoolLink>& link, const v1::PoolHello& hello, const Moment& now) {
  if (!AdmitHello(link, hello, now)) return;
  Pool& pool = pools_[hello.pool()];
  const bool same_launch = pool.launch.session == hello.session();
  const bool goes_on = same_launch && hello.has_running() && !pool.abandons && hello.running().job() == pool.job &&
                       hello.running().attempt() == pool.attempt;
  if (!pool.job.empty() && !pool.abandons && !goes_on) {
    LoseJob(pool, same_launch ? AttemptEnd::kNotDelivered : AttemptEnd::kPoolGone, "it was started anew", now);
  }
  if (!goes_on) {
    pool.job.clear();
    pool.attempt = 0;
    pool.abandons = false;
  }
  if (!same_launch) pool.leaving = false;
  pool.launch = {hello.pool(), hello.session(), hello.ranks()};
  pool.hello = hello;
  pool.link = link;
  pool.connected = pool.last_heard = now;
  const bool accepted = goes_on || (hello.has_running() && AdoptRunning(pool, hello.running(), now));
  v1::ServerMessage message;
  message.mutable_welcome()->set_heartbeat_interval_ms(static_cast<int32_t>(options_.heartbeat.count()));
  message.mutable_welcome()->set_running_accepted(accepted);
  Send(pool, std::move(message));
  PoolsChanged();
  Tell(fmt::format("pool {} is here: {} ranks{}", hello.pool(), hello.ranks(),
                   hello.has_running() ? fmt::format(", attempt {} of {} {}", hello.running().attempt(),
                                                     Quoted(hello.running().job()), accepted ? "goes on" : "is stale")
                                       : ""));
  if (hello.has_running() && !accepted) {
    pool.job = hello.running().job();
    pool.attempt = hello.running().attempt();
    pool.abandons = true;
    pool.abandoned = now;
    Abandon(pool, pool.job, pool.attempt);
  }
  const JobRecord* running = accepted ? jobs_.Running(pool.job) : nullptr;
  if (running != nullptr && running->job.stop_requested()) SendStop(pool);
}

bool Controller::AdoptRunning(Pool& pool, const v1::RunningJob& running, const Moment& now) {
  auto record = jobs_.Find(running.job());
  if (!record.ok() || record->job.id() != running.job()) return false;
  if (!MayReadopt(*record, pool.launch, running.attempt())) return false;
  Readopt(*record, pool.launch);
  Save(*record);
  Say(*record, "info", record->job.reason(), now);
  pool.job = running.job();
  pool.attempt = running.attempt();
  return true;
}

void Controller::LoseJob(Pool& pool, AttemptEnd end, const std::string& reason, const Moment& now) {
  if (const JobRecord* record = jobs_.Running(pool.job);
      record != nullptr && record->job.pool() == pool.launch.name && record->job.attempt() == pool.attempt) {
    End(*record, end, reason, now);
  }
  pool.job.clear();
  pool.attempt = 0;
}

void Controller::PoolBroke(const std::shared_ptr<PoolLink>& link, const Moment& now) {
  Pool* pool = PoolOf(link.get());
  if (pool == nullptr) return;
  pool->link = nullptr;
  pool->lost = now;
  Tell(fmt::format("pool {} is lost: its stream broke", pool->launch.name));
  PoolsChanged();
}

void Controller::Progressed(Pool& pool, const v1::Progress& progress) {
  if (pool.abandons || progress.job() != pool.job || progress.attempt() != pool.attempt) return;
  if (!jobs_.SetProgress(pool.job, progress)) return;
  AfterCommit([this, id = pool.job](const absl::Status& committed) {
    const JobRecord* record = committed.ok() ? jobs_.Running(id) : nullptr;
    if (record != nullptr) observer_.JobProgressed(record->job);
  });
}

void Controller::CheckpointWritten(Pool& pool, const v1::CheckpointWritten& written) {
  if (pool.abandons || written.job() != pool.job || written.attempt() != pool.attempt) return;
  if (!jobs_.SetCheckpoint(pool.job, written.step())) return;
  AfterCommit([this, id = pool.job](const absl::Status& committed) {
    const JobRecord* record = committed.ok() ? jobs_.Running(id) : nullptr;
    if (record != nullptr) observer_.JobProgressed(record->job);
  });
}

void Controller::Logged(Pool& pool, const v1::WorkerLog& log, const Moment& now) {
  v1::ServerMessage message;
  message.mutable_log_ack()->set_job(log.job());
  message.mutable_log_ack()->set_attempt(log.attempt());
  message.mutable_log_ack()->set_number(log.number());
  Send(pool, std::move(message));
  auto record = jobs_.Find(log.job());
  if (!record.ok() && record.status().code() != absl::StatusCode::kNotFound) Check(record.status());
  // Lines of a job that is deleted, or that this pool never had, are of no use to anyone.
  if (!record.ok() || record->job.id() != log.job() || log.attempt() > record->job.attempt()) return;
  const auto last = jobs_.store().LastWorkerLine(*record, log.attempt());
  Check(last.status());
  if (!last.ok() || log.number() <= *last) return;
  v1::LogLine line;
  *line.mutable_time() = log.has_time() ? log.time() : ToTimestamp(now.unix_us);
  line.set_level(LevelOfLine(log.level()));
  line.set_source(pool.launch.name);
  line.set_attempt(log.attempt());
  line.set_text(Printable(log.text(), kMaxLineBytes));
  Check(jobs_.store().AddLine(*record, line, log.number()));
  AfterCommit([this, id = log.job()](const absl::Status& committed) {
    if (committed.ok()) observer_.LinesAdded(id);
  });
}

void Controller::Ended(Pool& pool, const v1::JobEnded& ended, const Moment& now) {
  v1::ServerMessage message;
  message.mutable_ended_ack()->set_job(ended.job());
  message.mutable_ended_ack()->set_attempt(ended.attempt());
  Send(pool, std::move(message));
  if (ended.job() != pool.job || ended.attempt() != pool.attempt) return;
  if (!pool.abandons) {
    LoseJob(pool, EndOf(ended.outcome()), ended.reason(), now);
  }
  pool.job.clear();
  pool.attempt = 0;
  pool.abandons = false;
  pool.leaving = ended.leaving();
  PoolsChanged();
}

void Controller::Tick(const Moment& now) {
  if (!loaded_ || shut_down_) return;
  for (auto entry = pools_.begin(); entry != pools_.end();) {
    Pool& pool = entry->second;
    const auto silence = now.steady - pool.last_heard.steady;
    if (pool.link && silence > kSilentHeartbeats * options_.heartbeat) {
      Close(pool.link, Error(absl::StatusCode::kUnavailable, "pool {} was silent for {:.1f} s", pool.launch.name,
                             Seconds(silence)));
      PoolBroke(pool.link, now);
    } else if (pool.link && pool.abandons &&
               now.steady - pool.abandoned.steady > kAbandonHeartbeats * options_.heartbeat) {
      Close(pool.link, Error(absl::StatusCode::kAborted, "connect again and say what runs"));
      PoolBroke(pool.link, now);
    }
    if (pool.link || now.steady - pool.lost.steady <= options_.pool_grace) {
      ++entry;
      continue;
    }
    if (!pool.abandons) {
      LoseJob(pool, AttemptEnd::kPoolLost, fmt::format("nothing was heard of it for {:.1f} s", Seconds(silence)), now);
    }
    entry = pools_.erase(entry);
    PoolsChanged();
  }
  Check(jobs_.FlushProgress(now));
}

std::vector<v1::Pool> Controller::Pools() const {
  std::vector<v1::Pool> pools;
  for (const auto& [name, pool] : pools_) {
    v1::Pool& out = pools.emplace_back();
    out.set_name(name);
    out.set_state(!pool.link ? v1::LOST : pool.job.empty() ? v1::IDLE : v1::BUSY);
    out.set_ranks(pool.launch.ranks);
    out.set_job(pool.job);
    out.set_backend(pool.hello.backend());
    out.set_version(pool.hello.version());
    *out.mutable_endpoints() = pool.hello.endpoints();
    if (pool.connected.unix_us != 0) *out.mutable_connected() = ToTimestamp(pool.connected.unix_us);
    *out.mutable_last_heard() = ToTimestamp(pool.last_heard.unix_us);
  }
  return pools;
}

}  // namespace shardmax
