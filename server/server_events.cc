#include "server/server_events.h"

#include <spdlog/spdlog.h>

#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr std::chrono::milliseconds kLookInterval{500};

}  // namespace

void ServerEvents::JobChanged(const v1::Job& job) {
  jobs_changed_ = true;
  if (IsFinal(job.state())) metrics_.Finished(job.state());
  feed_.Changed(job);
  spdlog::info("job {} {}: {}", job.id(), v1::JobState_Name(job.state()), job.reason());
}

void ServerEvents::JobDeleted(const std::string& id) {
  jobs_changed_ = true;
  spdlog::info("job {} deleted", id);
}

void ServerEvents::PoolNews(const std::string& news) {
  spdlog::info("{}", news);
}

void ServerEvents::Tick(Controller& controller, const Moment& now) {
  if (pools_changed_ || now.steady - last_look_ >= kLookInterval) {
    last_look_ = now.steady;
    metrics_.SetPools(controller.Pools(), now);
    metrics_.SetMemory();
  }
  if (jobs_changed_) {
    if (const auto counts = controller.CountByState(); counts.ok()) {
      metrics_.SetJobs(*counts);
      jobs_changed_ = false;
    }
  }
  if (pools_changed_) {
    const absl::Status written = state_.WriteTargets(metrics_address_, controller.Pools());
    if (!written.ok()) spdlog::error("{}", Message(written));
    pools_changed_ = false;
  }
}

}  // namespace shardmax
