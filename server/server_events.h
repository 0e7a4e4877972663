// What follows from a change: notices to watchers, metrics, the targets file, the server's own log.
#pragma once

#include <chrono>
#include <string>

#include "server/controller.h"
#include "server/job_feed.h"
#include "server/metrics.h"
#include "server/state_folder.h"

namespace shardmax {

// On the loop's thread.
class ServerEvents final : public ControllerObserver {
 public:
  ServerEvents(ServerMetrics& metrics, JobFeed& feed, const StateFolder& state)
      : metrics_(metrics), feed_(feed), state_(state) {}

  // Before the first Tick().
  void SetMetricsAddress(const std::string& address) { metrics_address_ = address; }

  // Does what is too much for every change, when there was one.
  void Tick(Controller& controller, const Moment& now);

 private:
  void JobChanged(const shardmax::v1::Job& job) override;
  void JobProgressed(const shardmax::v1::Job& job) override { feed_.Progressed(job, Moment::Now()); }
  void JobDeleted(const std::string& id) override;
  void LinesAdded(const std::string& id) override { feed_.LinesAdded(id); }
  void PoolsChanged() override { pools_changed_ = true; }
  void PoolNews(const std::string& news) override;
  void Submitted() override { metrics_.Submitted(); }
  void Assigned(double waited_s) override { metrics_.Assigned(waited_s); }
  void Restarted(const std::string& cause) override { metrics_.Restarted(cause); }

  ServerMetrics& metrics_;
  JobFeed& feed_;
  const StateFolder& state_;
  std::string metrics_address_;
  bool jobs_changed_ = true;
  bool pools_changed_ = true;
  std::chrono::steady_clock::time_point last_look_;
};

}  // namespace shardmax
