#include "worker/control/pool_session.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <thread>
#include <utility>

#include "worker/base/status.h"
#include "worker/control/control_link.h"
#include "worker/control/link_desk.h"
#include "worker/control/pool_loop.h"

namespace shardmax {
namespace {

// How long a pool that leaves waits for the server to know how its last job ended, and to hear its goodbye.
constexpr std::chrono::seconds kLastWords(5);
constexpr std::chrono::seconds kGoodbye(3);
// The same for a pool whose communicator broke; its other ranks stay alive that long, for when one of them goes mpirun
// ends them all.
constexpr std::chrono::seconds kBrokenLastWords(3);
constexpr std::chrono::seconds kBrokenRankWaits(5);

struct Address {
  std::array<char, 256> host = {};
  int32_t metrics_port = 0;
  int32_t data_port = 0;
};

// The endpoints of all ranks, on every rank. Collective.
absl::StatusOr<std::vector<v1::RankEndpoint>> GatherAddresses(Communicator& comm, const PoolSession& session) {
  Address mine;
  session.metrics_host.copy(mine.host.data(), mine.host.size() - 1);
  mine.metrics_port = session.metrics_port;
  mine.data_port = session.data_port;
  std::vector<Address> all(comm.size());
  SHARDMAX_RETURN_IF_ERROR(comm.AllGather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all))));
  std::vector<v1::RankEndpoint> endpoints;
  for (int rank = 0; rank < comm.size(); ++rank) {
    if (all[rank].metrics_port == 0 && all[rank].data_port == 0) continue;
    v1::RankEndpoint& endpoint = endpoints.emplace_back();
    endpoint.set_rank(rank);
    endpoint.set_host(all[rank].host.data());
    endpoint.set_metrics_port(all[rank].metrics_port);
    endpoint.set_data_port(all[rank].data_port);
  }
  return endpoints;
}

std::string RandomSession() {
  std::random_device random;
  std::string session;
  for (int i = 0; i < 4; ++i) session += fmt::format("{:08x}", random());
  return session;
}

LinkOptions LinkOptionsOf(const PoolSession& session, int ranks, const std::vector<v1::RankEndpoint>& endpoints) {
  const WorkerOptions& options = session.options;
  LinkOptions link;
  if (!options.server.empty()) link.channel.server = options.server;
  link.channel.tls_ca = options.tls_ca;
  link.channel.tls_cert = options.tls_cert;
  link.channel.tls_key = options.tls_key;
  link.token_file = options.token_file;
  link.hello.set_pool(options.pool);
  link.hello.set_session(RandomSession());
  link.hello.set_ranks(ranks);
  link.hello.set_backend(session.backend);
  link.hello.set_version(WorkerVersion());
  *link.hello.mutable_endpoints() = {endpoints.begin(), endpoints.end()};
  return link;
}

// Rank 0's end of the session; nothing on the others.
class Link {
 public:
  Link(const Communicator& comm, const PoolSession& session, const std::vector<v1::RankEndpoint>& endpoints) {
    if (comm.rank() != 0) return;
    auto log = std::make_shared<spdlog::logger>("pool", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    log->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    desk_.emplace();
    link_.emplace(LinkOptionsOf(session, comm.size(), endpoints), *desk_, log);
  }

  LinkDesk* desk() { return desk_.has_value() ? &*desk_ : nullptr; }

  void Leave() {
    if (!desk_.has_value()) return;
    desk_->AwaitEndAcknowledged(kLastWords);
    link_->Leave("the pool was told to leave", kGoodbye);
  }

  void Break() {
    if (desk_.has_value()) {
      desk_->AwaitEndAcknowledged(kBrokenLastWords);
    } else {
      std::this_thread::sleep_for(kBrokenRankWaits);
    }
  }

 private:
  std::optional<LinkDesk> desk_;
  std::optional<ControlLink> link_;
};

}  // namespace

JobEnd RunPool(Communicator& comm, const PoolSession& session) {
  const auto endpoints = GatherAddresses(comm, session);
  if (!endpoints.ok()) return {kExitJobFailed, endpoints.status()};
  Link link(comm, session, *endpoints);
  PoolHost host = {.job = session.host, .desk = link.desk(), .after_turn = session.after_turn};
  if (comm.rank() == 0) host.job.log_sinks.push_back(std::make_shared<spdlog::sinks::stderr_sink_mt>());
  PoolLoop loop(comm, {.pool = session.options.pool}, host);
  const absl::Status status = loop.Run();
  if (status.ok()) {
    link.Leave();
    return {};
  }
  if (!comm.Barrier().ok()) link.Break();
  return {absl::IsInvalidArgument(status) ? kExitInvalidUse : kExitJobFailed, status};
}

}  // namespace shardmax
