#include "server/metrics_listener.h"

#include <netdb.h>
#include <prometheus/exposer.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include "worker/base/status.h"

namespace shardmax {
namespace {

// Connects and goes.
void Visit(const ListenAddress& address) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST;
  addrinfo* list = nullptr;
  if (getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &list) != 0) return;
  const int visit = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (visit >= 0) {
    // That it comes is enough; without blocking it does not succeed at once.
    static_cast<void>(connect(visit, list->ai_addr, list->ai_addrlen));
    close(visit);
  }
  freeaddrinfo(list);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsListener>> MetricsListener::Start(
    ListenAddress address, std::shared_ptr<prometheus::Collectable> metrics) {
  // The library wants an address, not a name.
  if (address.host == "localhost") address.host = "127.0.0.1";
  try {
    auto exposer = std::make_unique<prometheus::Exposer>(address.Text(), 1);
    address.port = exposer->GetListeningPorts().at(0);
    return std::unique_ptr<MetricsListener>(
        new MetricsListener(std::move(exposer), std::move(address), std::move(metrics)));
  } catch (const std::exception&) {
    // What it says is "null context when constructing CivetServer", whatever the reason.
    return Error(absl::StatusCode::kUnavailable,
                 "--metrics_listen: cannot listen at {}: another process has the port, or the host is no address of "
                 "this machine",
                 address.Text());
  }
}

MetricsListener::MetricsListener(std::unique_ptr<prometheus::Exposer> exposer, ListenAddress address,
                                 std::shared_ptr<prometheus::Collectable> metrics)
    : metrics_(std::move(metrics)), exposer_(std::move(exposer)), address_(std::move(address)) {
  exposer_->RegisterCollectable(metrics_);
}

MetricsListener::~MetricsListener() {
  // The library looks whether it is to stop every two seconds, or when somebody connects.
  std::atomic<bool> stopped = false;
  std::thread visitor([&] {
    for (; !stopped; std::this_thread::sleep_for(std::chrono::milliseconds(5))) Visit(address_);
  });
  exposer_.reset();
  stopped = true;
  visitor.join();
}

}  // namespace shardmax
