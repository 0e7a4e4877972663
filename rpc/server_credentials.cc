#include "rpc/server_credentials.h"

#include <openssl/x509.h>

#include <functional>
#include <string>
#include <utility>

#include "rpc/client_certificates.h"
#include "rpc/credentials.h"
#include "rpc/pem.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

absl::StatusOr<std::string> ReadFile(const std::string& option, const std::string& path) {
  auto text = ReadSmallFile(path, kMaxPemBytes);
  if (!text.ok()) return Annotate(text.status(), option);
  return text;
}

// gRPC itself says nothing about a pair that it cannot use.
absl::Status CheckPair(const ServerTlsOptions& options, const std::string& cert_text, const std::string& key_text) {
  const std::string& prefix = options.option_prefix;
  const X509Certificate certificate = PemReader(cert_text).NextCertificate();
  if (!certificate) return InvalidArgument("{}tls_cert: {}: no certificate in PEM", prefix, options.cert);
  const PrivateKey key = PemReader(key_text).NextPrivateKey();
  if (!key) return InvalidArgument("{}tls_key: {}: no key in PEM, or one with a password", prefix, options.key);
  if (X509_check_private_key(certificate.get(), key.get()) == 1) return absl::OkStatus();
  return InvalidArgument("{}tls_key: {}: is not the key of {}", prefix, options.key, options.cert);
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ReadServerCredentials(const ServerTlsOptions& options,
                                                                               std::function<void()> on_refused) {
  if (options.cert.empty()) return grpc::InsecureServerCredentials();
  const std::string& prefix = options.option_prefix;
  grpc::SslServerCredentialsOptions::PemKeyCertPair pair;
  SHARDMAX_ASSIGN_OR_RETURN(pair.cert_chain, ReadFile(prefix + "tls_cert", options.cert));
  SHARDMAX_ASSIGN_OR_RETURN(pair.private_key, ReadFile(prefix + "tls_key", options.key));
  SHARDMAX_RETURN_IF_ERROR(CheckPair(options, pair.cert_chain, pair.private_key));
  grpc::SslServerCredentialsOptions ssl;
  ssl.pem_key_cert_pairs.push_back(std::move(pair));
  std::shared_ptr<ClientCertificates> certificates;
  if (!options.client_ca.empty()) {
    SHARDMAX_ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadFile(prefix + "tls_client_ca", options.client_ca));
    auto made = ClientCertificates::Make(ssl.pem_root_certs, std::move(on_refused));
    if (!made.ok()) return Annotate(made.status(), fmt::format("{}tls_client_ca: {}", prefix, options.client_ca));
    certificates = *std::move(made);
    ssl.client_certificate_request = GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_BUT_DONT_VERIFY;
  }
  auto credentials = grpc::SslServerCredentials(ssl);
  if (certificates) credentials->SetAuthMetadataProcessor(certificates);
  return credentials;
}

}  // namespace shardmax
