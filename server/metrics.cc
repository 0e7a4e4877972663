#include "server/metrics.h"

#include <prometheus/counter.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

namespace shardmax {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Histogram;

// Half a millisecond to ten seconds, and a second to a week.
const Histogram::BucketBoundaries& RpcBuckets() {
  static const Histogram::BucketBoundaries buckets = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                      0.1,    0.25,  0.5,    1,     2.5,  5,     10};
  return buckets;
}

const Histogram::BucketBoundaries& WaitBuckets() {
  static const Histogram::BucketBoundaries buckets = {0.1, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400, 604800};
  return buckets;
}

constexpr v1::JobState kStates[] = {v1::PENDING, v1::RUNNING, v1::SUCCEEDED, v1::FAILED, v1::STOPPED};
constexpr v1::PoolState kPoolStates[] = {v1::IDLE, v1::BUSY, v1::LOST};

std::string Lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

std::string NameOf(v1::JobState state) {
  return Lower(v1::JobState_Name(state));
}

std::string NameOf(v1::PoolState state) {
  return Lower(v1::PoolState_Name(state));
}

}  // namespace

std::string CodeName(absl::StatusCode code) {
  // Abseil's names are those of gRPC.
  const std::string name(absl::StatusCodeToString(code));
  return name.empty() ? "UNKNOWN" : name;
}

ServerMetrics::ServerMetrics(const std::string& version)
    : jobs_(BuildGauge().Name("shardmax_jobs").Help("Jobs in each state.").Register(*registry_)),
      submitted_(BuildCounter().Name("shardmax_jobs_submitted_total").Help("Jobs accepted.").Register(*registry_)),
      finished_(BuildCounter()
                    .Name("shardmax_jobs_finished_total")
                    .Help("Jobs that came to a final state.")
                    .Register(*registry_)),
      restarts_(BuildCounter()
                    .Name("shardmax_job_restarts_total")
                    .Help("Attempts that ended without a final state, by cause.")
                    .Register(*registry_)),
      queue_wait_(BuildHistogram()
                      .Name("shardmax_job_queue_wait_seconds")
                      .Help("From becoming pending to assignment.")
                      .Register(*registry_)),
      pools_(BuildGauge().Name("shardmax_pools").Help("Pools in each state.").Register(*registry_)),
      pool_ranks_(
          BuildGauge().Name("shardmax_pool_ranks").Help("Ranks of the pools in each state.").Register(*registry_)),
      pool_silence_(BuildGauge()
                        .Name("shardmax_pool_silence_seconds")
                        .Help("Since the pool was heard last.")
                        .Register(*registry_)),
      rpcs_(BuildCounter()
                .Name("shardmax_rpcs_total")
                .Help("RPCs that ended, refused ones included.")
                .Register(*registry_)),
      rpc_seconds_(BuildHistogram()
                       .Name("shardmax_rpc_seconds")
                       .Help("From arrival to status of RPCs that are no streams.")
                       .Register(*registry_)),
      rpc_streams_(BuildGauge().Name("shardmax_rpc_streams").Help("Open streams.").Register(*registry_)),
      memory_(BuildGauge()
                  .Name("shardmax_resident_memory_bytes")
                  .Help("Resident memory of the process.")
                  .Register(*registry_)
                  .Add({})) {
  BuildGauge()
      .Name("shardmax_build_info")
      .Help("Always 1; the labels say what runs.")
      .Register(*registry_)
      .Add({{"version", version}, {"component", "server"}})
      .Set(1);
  // A series that is there from the start shows its first increase.
  submitted_.Add({});
  queue_wait_.Add({}, WaitBuckets());
  SetJobs({});
  for (const v1::JobState state : {v1::SUCCEEDED, v1::FAILED, v1::STOPPED}) finished_.Add({{"state", NameOf(state)}});
  for (const char* cause : {"pool_failed", "pool_lost", "interrupted"}) restarts_.Add({{"cause", cause}});
  SetPools({}, Moment::Now());
  SetMemory();
}

void ServerMetrics::RpcEnded(const std::string& method, absl::StatusCode code) {
  rpcs_.Add({{"method", method}, {"code", CodeName(code)}}).Increment();
}

void ServerMetrics::UnaryTook(const std::string& method, std::chrono::steady_clock::duration time) {
  rpc_seconds_.Add({{"method", method}}, RpcBuckets()).Observe(std::chrono::duration<double>(time).count());
}

void ServerMetrics::StreamOpened(const std::string& method) {
  rpc_streams_.Add({{"method", method}}).Increment();
}

void ServerMetrics::StreamClosed(const std::string& method) {
  rpc_streams_.Add({{"method", method}}).Decrement();
}

void ServerMetrics::SetJobs(const std::map<v1::JobState, int64_t>& counts) {
  for (const v1::JobState state : kStates) {
    const auto count = counts.find(state);
    const double jobs = count == counts.end() ? 0 : static_cast<double>(count->second);
    jobs_.Add({{"state", NameOf(state)}}).Set(jobs);
  }
}

void ServerMetrics::Submitted() {
  submitted_.Add({}).Increment();
}

void ServerMetrics::Finished(v1::JobState state) {
  finished_.Add({{"state", NameOf(state)}}).Increment();
}

void ServerMetrics::Restarted(const std::string& cause) {
  restarts_.Add({{"cause", cause}}).Increment();
}

void ServerMetrics::Assigned(double waited_s) {
  queue_wait_.Add({}, WaitBuckets()).Observe(waited_s);
}

void ServerMetrics::SetPools(const std::vector<v1::Pool>& pools, const Moment& now) {
  std::map<v1::PoolState, std::pair<int, int>> by_state;  // Pools, ranks.
  std::set<std::string> present;
  for (const v1::Pool& pool : pools) {
    auto& [count, ranks] = by_state[pool.state()];
    ++count;
    ranks += pool.ranks();
    present.insert(pool.name());
    prometheus::Gauge*& silence = silence_of_[pool.name()];
    if (silence == nullptr) silence = &pool_silence_.Add({{"pool", pool.name()}});
    silence->Set(static_cast<double>(now.unix_us - ToUnixMicros(pool.last_heard())) / 1e6);
  }
  for (auto silence = silence_of_.begin(); silence != silence_of_.end();) {
    if (present.count(silence->first) != 0) {
      ++silence;
      continue;
    }
    pool_silence_.Remove(silence->second);
    silence = silence_of_.erase(silence);
  }
  for (const v1::PoolState state : kPoolStates) {
    pools_.Add({{"state", NameOf(state)}}).Set(by_state[state].first);
    pool_ranks_.Add({{"state", NameOf(state)}}).Set(by_state[state].second);
  }
}

void ServerMetrics::SetMemory() {
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return;
  long pages = 0;
  if (std::fscanf(file, "%*s %ld", &pages) == 1) memory_.Set(static_cast<double>(pages * sysconf(_SC_PAGESIZE)));
  std::fclose(file);
}

}  // namespace shardmax
