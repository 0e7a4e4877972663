// Mutual TLS with an answer: a caller whose certificate is wrong learns so from a status.
#pragma once

#include <grpcpp/security/auth_metadata_processor.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace shardmax {

// Admits calls of connections whose certificate one of the authorities has signed, for use as a TLS client; all others
// are UNAUTHENTICATED, with the reason. For server credentials that ask for a certificate and do not verify it
// (GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_BUT_DONT_VERIFY): if the handshake refused it, the caller would only see that
// the connection breaks, and the server could not count it. That the caller has the key of its certificate is the
// handshake's business either way.
//
// It stands before every service of the server, health checks and reflection included. Any thread calls.
class ClientCertificates : public grpc::AuthMetadataProcessor {
 public:
  // `authorities` is PEM text of one or more certificates, else InvalidArgument. `on_refused` is called for each call
  // that is refused, on any thread; may be empty.
  static absl::StatusOr<std::shared_ptr<ClientCertificates>> Make(const std::string& authorities,
                                                                  std::function<void()> on_refused);
};

}  // namespace shardmax
