// The credentials of a channel, from files.
#pragma once

#include <grpcpp/security/credentials.h>

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/channel.h"

namespace shardmax {

// Plain, TLS or mutual TLS, as `options` say. Errors as of MakeChannel().
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ReadCredentials(const ChannelOptions& options);

// No file of PEM that a program is given is longer.
constexpr size_t kMaxPemBytes = 4 << 20;

// All of a file of at most `max_bytes`. Errors name the file.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes);

}  // namespace shardmax
