// GET /metrics over HTTP.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/listen_address.h"

namespace prometheus {
class Collectable;
class Exposer;
}  // namespace prometheus

namespace shardmax {

class MetricsListener {
 public:
  // Serves on a thread of its own. Unavailable if it cannot listen there.
  static absl::StatusOr<std::unique_ptr<MetricsListener>> Start(ListenAddress address,
                                                                std::shared_ptr<prometheus::Collectable> metrics);
  ~MetricsListener();
  MetricsListener(const MetricsListener&) = delete;
  MetricsListener& operator=(const MetricsListener&) = delete;

  const ListenAddress& address() const { return address_; }  // With the port that was chosen.

 private:
  MetricsListener(std::unique_ptr<prometheus::Exposer> exposer, ListenAddress address,
                  std::shared_ptr<prometheus::Collectable> metrics);

  std::shared_ptr<prometheus::Collectable> metrics_;
  std::unique_ptr<prometheus::Exposer> exposer_;
  ListenAddress address_;
};

}  // namespace shardmax
