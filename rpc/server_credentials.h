// TLS of the server, from files.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace shardmax {

struct ServerTlsOptions {
  std::string option_prefix;  // Of the options in messages: "--" or "--data_".
  // PEM files of the server's certificate with its chain, and its key. Both or neither; empty: no TLS.
  std::string cert;
  std::string key;
  std::string client_ca;  // PEM file of the authorities that must have signed every client's certificate; may be empty.
};

// Plain, TLS or mutual TLS, as the options say. Errors name the option and the file: one that cannot be read or is no
// PEM, or a key that is not the certificate's. With mutual TLS `on_refused` is called, on any thread, for each call
// whose client certificate is none of the authorities'; may be empty.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ReadServerCredentials(const ServerTlsOptions& options,
                                                                               std::function<void()> on_refused);

}  // namespace shardmax
