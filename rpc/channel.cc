#include "rpc/channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "rpc/credentials.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr int kFirstReconnectMs = 200;
constexpr int kMaxReconnectMs = 3'000;
constexpr int kConnectTimeoutMs = 5'000;
// gRPC counts a ping as too early when it comes before this; half of the clients' period leaves room for jitter.
constexpr int kAllowedPingPeriodMs = kKeepaliveMs / 2;

absl::Status CheckAddress(const std::string& server) {
  const std::string_view address = server;
  const size_t colon = address.rfind(':');
  if (colon != std::string_view::npos && colon > 0) {
    const std::string_view host = address.substr(0, colon);
    const std::string_view digits = address.substr(colon + 1);
    int port = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    const bool whole = error == std::errc() && end == digits.data() + digits.size();
    // Without brackets the colons of an IPv6 address and of the port cannot be told apart.
    const bool plain = host.find(':') == std::string_view::npos;
    const bool bracketed = host.front() == '[' && host.back() == ']';
    const bool visible = std::all_of(host.begin(), host.end(), [](char c) { return c > ' ' && c <= '~' && c != '/'; });
    if (whole && port >= 1 && port <= 65535 && (plain || bracketed) && visible) return absl::OkStatus();
  }
  return InvalidArgument("--server is \"{}\": give HOST:PORT, or [IPV6]:PORT", server);
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const ChannelOptions& options) {
  SHARDMAX_RETURN_IF_ERROR(CheckAddress(options.server));
  SHARDMAX_ASSIGN_OR_RETURN(const auto credentials, ReadCredentials(options));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxClientReceiveBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // A quiet stream is kept alive for as long as it lasts.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstReconnectMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kMaxReconnectMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectTimeoutMs);  // In spite of its name.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // A pool and a client of one process each have a connection of their own.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(options.server, credentials, arguments);
}

void AddToken(const std::string& token, grpc::ClientContext& context) {
  if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
}

void AcceptKeepalive(grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kAllowedPingPeriodMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
}

}  // namespace shardmax
