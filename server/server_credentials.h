// TLS of the server, from files.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "absl/status/statusor.h"
#include "server/options.h"

namespace shardmax {

// Plain, TLS or mutual TLS, as the options say. Errors name the option and the file: one that cannot be read or is no
// PEM, or a key that is not the certificate's.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ReadServerCredentials(const ServerOptions& options);

}  // namespace shardmax
