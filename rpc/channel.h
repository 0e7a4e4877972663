// How a client reaches shardmax-server: one place for TLS, bearer tokens, keepalive and message limits, for the worker,
// the C++ client library and the command.
//
// All functions may be called by any thread.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shardmax {

inline constexpr char kDefaultServer[] = "127.0.0.1:7700";

// Answers of a server are at most this long; chunks of an export are far shorter.
inline constexpr int kMaxClientReceiveBytes = 64 << 20;
// A client that hears nothing for so long asks whether the server is still there, and breaks the connection when no
// answer comes in time.
inline constexpr int kKeepaliveMs = 10'000;
inline constexpr int kKeepaliveTimeoutMs = 10'000;

struct ChannelOptions {
  std::string server = kDefaultServer;  // HOST:PORT, or [IPv6]:PORT.
  // PEM file with the authorities that may have signed the server's certificate, or "system" for those of the machine.
  // Empty: no TLS.
  std::string tls_ca;
  // PEM files of the client's own certificate (with its chain) and key, for mutual TLS. Both or neither; with tls_ca.
  std::string tls_cert;
  std::string tls_key;
  std::string token;  // Bearer token; empty: none. See ReadToken().
};

// A channel, which connects when it is first used, and again after a break (soon at first, then every 3 s at most). It
// ignores http_proxy: a server of the cluster is reached directly. InvalidArgument, NotFound or PermissionDenied naming
// the option or file that is wrong.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const ChannelOptions& options);

// Has the call carry `authorization: Bearer TOKEN`, with TLS or without; nothing for an empty token.
void AddToken(const std::string& token, grpc::ClientContext& context);

// Has a server of `builder` put up with the keepalive of MakeChannel(); gRPC's default is to close such a connection
// after a few minutes ("too_many_pings"). It also asks silent clients itself.
void AcceptKeepalive(grpc::ServerBuilder& builder);

// The token in `token_file`, or if that is empty in the environment variable SHARDMAX_TOKEN, without the white space
// around it; empty if neither is given. PermissionDenied if every user of the machine may read or change the file;
// InvalidArgument if there is no token in it, or characters that a token never has.
absl::StatusOr<std::string> ReadToken(const std::string& token_file);

}  // namespace shardmax
