// What the server tells Prometheus. Names, labels and meanings: docs/metrics.md; a test compares them.
#pragma once

#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/moment.h"
#include "shardmax/v1/control.pb.h"

namespace shardmax {

// "NOT_FOUND".
std::string CodeName(absl::StatusCode code);

// Any thread calls.
class ServerMetrics {
 public:
  explicit ServerMetrics(const std::string& version);

  std::shared_ptr<prometheus::Registry> registry() const { return registry_; }

  // `method` is "JobService/GetJob", or "unknown": never what a stranger wrote.
  void RpcEnded(const std::string& method, absl::StatusCode code);
  void UnaryTook(const std::string& method, std::chrono::steady_clock::duration time);
  void StreamOpened(const std::string& method);
  void StreamClosed(const std::string& method);

  void SetJobs(const std::map<shardmax::v1::JobState, int64_t>& counts);
  void Submitted();
  void Finished(shardmax::v1::JobState state);
  void Restarted(const std::string& cause);
  void Assigned(double waited_s);
  void SetPools(const std::vector<shardmax::v1::Pool>& pools, const Moment& now);
  // Reads the size of this process.
  void SetMemory();

 private:
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  prometheus::Family<prometheus::Gauge>& jobs_;
  prometheus::Family<prometheus::Counter>& submitted_;
  prometheus::Family<prometheus::Counter>& finished_;
  prometheus::Family<prometheus::Counter>& restarts_;
  prometheus::Family<prometheus::Histogram>& queue_wait_;
  prometheus::Family<prometheus::Gauge>& pools_;
  prometheus::Family<prometheus::Gauge>& pool_ranks_;
  prometheus::Family<prometheus::Gauge>& pool_silence_;
  prometheus::Family<prometheus::Counter>& rpcs_;
  prometheus::Family<prometheus::Histogram>& rpc_seconds_;
  prometheus::Family<prometheus::Gauge>& rpc_streams_;
  prometheus::Gauge& memory_;
  std::map<std::string, prometheus::Gauge*> silence_of_;  // By pool; the caller of SetPools alone.
};

}  // namespace shardmax
