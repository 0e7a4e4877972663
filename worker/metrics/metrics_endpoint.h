// Where a rank serves its metrics.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace prometheus {
class Collectable;
class Exposer;
}  // namespace prometheus

namespace shardmax {

inline constexpr int kDefaultMetricsPortBase = 7710;

// The host under which this rank's metrics are found: `advertise_host` if given, else 127.0.0.1 if `server` (HOST:PORT,
// or empty: none) is on this machine, else the machine's name.
std::string MetricsHost(const std::string& advertise_host, const std::string& server);

// Serves GET /metrics over HTTP on threads of its own: to this machine only if `host` is a loopback address or
// "localhost", else on every interface.
class MetricsEndpoint {
 public:
  // `port_base` + `rank` is the port, any if `port_base` is 0. Without a `port_base`: that of the default, or any port
  // if it is taken. Unavailable: the port that was asked for is taken.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(
      const std::string& host, std::optional<int> port_base, int rank,
      const std::vector<std::shared_ptr<prometheus::Collectable>>& collectables);
  ~MetricsEndpoint();
  MetricsEndpoint(const MetricsEndpoint&) = delete;
  MetricsEndpoint& operator=(const MetricsEndpoint&) = delete;

  int port() const { return port_; }

 private:
  MetricsEndpoint(std::unique_ptr<prometheus::Exposer> exposer,
                  std::vector<std::shared_ptr<prometheus::Collectable>> collectables);

  std::vector<std::shared_ptr<prometheus::Collectable>> collectables_;
  std::unique_ptr<prometheus::Exposer> exposer_;
  int port_;
};

}  // namespace shardmax
