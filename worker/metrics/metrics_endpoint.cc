#include "worker/metrics/metrics_endpoint.h"

#include <netinet/in.h>
#include <prometheus/exposer.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr int kMaxPort = 65535;

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "[::1]" || host == "::1" || host.rfind("127.", 0) == 0;
}

// Null if the port is taken.
std::unique_ptr<prometheus::Exposer> TryPort(const std::string& host, int port) {
  const std::string address = IsLoopback(host) ? "127.0.0.1" : "0.0.0.0";
  try {
    return std::make_unique<prometheus::Exposer>(fmt::format("{}:{}", address, port));
  } catch (const std::exception&) {
    // The library does not tell why.
    return nullptr;
  }
}

// Connects to a port of this machine and goes.
void Visit(int port) {
  const int visit = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (visit < 0) return;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  (void)connect(visit, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  close(visit);
}

}  // namespace

std::string MetricsHost(const std::string& advertise_host, const std::string& server) {
  if (!advertise_host.empty()) return advertise_host;
  if (server.empty() || IsLoopback(server.substr(0, server.rfind(':')))) return "127.0.0.1";
  std::array<char, 256> name = {};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "127.0.0.1";
}

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(
    const std::string& host, std::optional<int> port_base, int rank,
    const std::vector<std::shared_ptr<prometheus::Collectable>>& collectables) {
  const int base = port_base.value_or(kDefaultMetricsPortBase);
  const int port = base == 0 ? 0 : base + rank;
  if (port > kMaxPort)
    return InvalidArgument("--metrics_port_base is {}: rank {} would need port {}", base, rank, port);
  auto exposer = TryPort(host, port);
  if (exposer == nullptr && !port_base.has_value()) exposer = TryPort(host, 0);
  if (exposer == nullptr) {
    return Error(
        absl::StatusCode::kUnavailable,
        "cannot serve metrics at port {}: another process has it; choose another --metrics_port_base, or 0 for "
        "any port",
        port);
  }
  return std::unique_ptr<MetricsEndpoint>(new MetricsEndpoint(std::move(exposer), collectables));
}

MetricsEndpoint::MetricsEndpoint(std::unique_ptr<prometheus::Exposer> exposer,
                                 std::vector<std::shared_ptr<prometheus::Collectable>> collectables)
    : collectables_(std::move(collectables)),
      exposer_(std::move(exposer)),
      port_(exposer_->GetListeningPorts().front()) {
  for (const auto& collectable : collectables_) exposer_->RegisterCollectable(collectable);
}

MetricsEndpoint::~MetricsEndpoint() {
  // The library looks whether it is to stop every two seconds, or when somebody connects.
  std::atomic<bool> stopped = false;
  std::thread visitor([&] {
    for (; !stopped; std::this_thread::sleep_for(std::chrono::milliseconds(5))) Visit(port_);
  });
  exposer_.reset();
  stopped = true;
  visitor.join();
}

}  // namespace shardmax
