// The metrics of a rank's trainers: docs/metrics.md.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <string>

#include "worker/live/live_observer.h"

namespace shardmax {

class LiveMetrics final : public LiveObserver {
 public:
  // As WorkerMetrics.
  LiveMetrics(int rank, const std::string& pool);

  // What to serve. Any thread collects, at any time.
  std::shared_ptr<prometheus::Collectable> collectable() const { return registry_; }

  void OnTrainers(int connected) override;
  void OnReceived(int64_t bytes) override;
  void OnSent(int64_t bytes) override;
  void OnRefused(absl::StatusCode code) override;
  void OnResent() override;
  void OnWaited(double seconds) override;

 private:
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  prometheus::Gauge* trainers_ = nullptr;
  prometheus::Counter* received_bytes_ = nullptr;
  prometheus::Counter* sent_bytes_ = nullptr;
  prometheus::Counter* resent_steps_ = nullptr;
  std::map<absl::StatusCode, prometheus::Counter*> refusals_;
  prometheus::Histogram* wait_seconds_ = nullptr;
};

}  // namespace shardmax
