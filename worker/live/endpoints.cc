#include "worker/live/endpoints.h"

#include <array>
#include <span>

#include "worker/base/status.h"

namespace shardmax {

absl::StatusOr<std::vector<std::string>> GatherEndpoints(Communicator& comm, const std::string& host, int port) {
  std::array<char, 300> mine = {};
  const bool bare_ipv6 = host.find(':') != std::string::npos && host.front() != '[';
  const std::string text = bare_ipv6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
  text.copy(mine.data(), mine.size() - 1);
  std::vector<std::array<char, 300>> all(static_cast<size_t>(comm.size()));
  SHARDMAX_RETURN_IF_ERROR(comm.AllGather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all))));
  std::vector<std::string> endpoints;
  for (const auto& each : all) endpoints.emplace_back(each.data());
  return endpoints;
}

}  // namespace shardmax
