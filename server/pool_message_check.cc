#include "server/pool_message_check.h"

#include <algorithm>
#include <string>

#include "worker/base/status.h"
#include "worker/data/quote.h"

namespace shardmax {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxSessionBytes = 128;
constexpr size_t kMaxHostBytes = 255;
constexpr int32_t kMaxRanks = 65536;

bool IsAlphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool IsPrintable(const std::string& text, size_t max_bytes) {
  return text.size() <= max_bytes && std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

absl::Status CheckName(const std::string& name) {
  const bool sound = !name.empty() && name.size() <= kMaxNameBytes && IsAlphanumeric(name[0]) &&
                     std::all_of(name.begin(), name.end(),
                                 [](char c) { return IsAlphanumeric(c) || c == '.' || c == '_' || c == '-'; });
  if (sound) return absl::OkStatus();
  return InvalidArgument(
      "hello.pool is {}: allowed is 1 to 64 characters of [A-Za-z0-9._-], starting with a letter or digit",
      Quoted(name));
}

absl::Status CheckEndpoint(const v1::RankEndpoint& endpoint, int32_t ranks) {
  // The host goes into the targets file of Prometheus.
  const bool host_sound = !endpoint.host().empty() && IsPrintable(endpoint.host(), kMaxHostBytes) &&
                          endpoint.host().find_first_of("/\"\\@") == std::string::npos;
  if (!host_sound) return InvalidArgument("hello.endpoints.host is {}: not a host", Quoted(endpoint.host()));
  if (endpoint.rank() < 0 || endpoint.rank() >= ranks) {
    return InvalidArgument("hello.endpoints.rank is {}: the pool has {} ranks", endpoint.rank(), ranks);
  }
  if (endpoint.metrics_port() < 1 || endpoint.metrics_port() > 65535) {
    return InvalidArgument("hello.endpoints.metrics_port is {}: allowed is 1 to 65535", endpoint.metrics_port());
  }
  if (endpoint.data_port() < 0 || endpoint.data_port() > 65535) {
    return InvalidArgument("hello.endpoints.data_port is {}: allowed is 0 to 65535", endpoint.data_port());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckHello(const v1::PoolHello& hello) {
  SHARDMAX_RETURN_IF_ERROR(CheckName(hello.pool()));
  if (hello.session().empty() || !IsPrintable(hello.session(), kMaxSessionBytes)) {
    return InvalidArgument("hello.session is {}: allowed is 1 to 128 printable characters", Quoted(hello.session()));
  }
  if (hello.ranks() < 1 || hello.ranks() > kMaxRanks) {
    return InvalidArgument("hello.ranks is {}: allowed is 1 to {}", hello.ranks(), kMaxRanks);
  }
  if (!IsPrintable(hello.backend(), kMaxNameBytes)) {
    return InvalidArgument("hello.backend is {}: not the name of a backend", Quoted(hello.backend()));
  }
  if (!IsPrintable(hello.version(), kMaxNameBytes)) {
    return InvalidArgument("hello.version is {}: not a version", Quoted(hello.version()));
  }
  if (hello.endpoints_size() > hello.ranks()) {
    return InvalidArgument("hello has {} endpoints for {} ranks", hello.endpoints_size(), hello.ranks());
  }
  for (const v1::RankEndpoint& endpoint : hello.endpoints()) {
    SHARDMAX_RETURN_IF_ERROR(CheckEndpoint(endpoint, hello.ranks()));
  }
  return absl::OkStatus();
}

}  // namespace shardmax
