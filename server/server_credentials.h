// TLS of the server, from files.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "server/options.h"

namespace shardmax {

// Plain, TLS or mutual TLS, as the options say. Errors name the option and the file: one that cannot be read or is no
// PEM, or a key that is not the certificate's. With mutual TLS `on_refused` is called, on any thread, for each call
// whose client certificate is none of the authorities'.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ReadServerCredentials(const ServerOptions& options,
                                                                               std::function<void()> on_refused);

}  // namespace shardmax
