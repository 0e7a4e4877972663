#include "rpc/client_certificates.h"

#include <grpc/grpc_security_constants.h>
#include <openssl/safestack.h>
#include <openssl/x509_vfy.h>

#include <string_view>
#include <utility>

#include "rpc/pem.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

struct Chain {
  STACK_OF(X509) * certificates = sk_X509_new_null();

  Chain() = default;
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;
  ~Chain() { sk_X509_pop_free(certificates, X509_free); }
};

std::string_view View(const grpc::string_ref& text) {
  return {text.data(), text.size()};
}

class Verifier final : public ClientCertificates {
 public:
  Verifier(X509Store store, std::function<void()> on_refused)
      : store_(std::move(store)), refused_(std::move(on_refused)) {}

  // Signatures take less than a millisecond, but must not hold up gRPC's own threads.
  bool IsBlocking() const override { return true; }

  grpc::Status Process(const InputMetadata& /*metadata*/, grpc::AuthContext* context, OutputMetadata* /*consumed*/,
                       OutputMetadata* /*response*/) override {
    const std::string mistake = MistakeOf(*context);
    if (mistake.empty()) return grpc::Status::OK;
    if (refused_) refused_();
    return {grpc::StatusCode::UNAUTHENTICATED, mistake};
  }

 private:
  std::string MistakeOf(const grpc::AuthContext& context) const {
    const auto own = context.FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
    if (own.empty()) return "this server wants a client certificate: give --tls_cert and --tls_key";
    const X509Certificate certificate = PemReader(View(own.front())).NextCertificate();
    if (!certificate) return "the client certificate cannot be read";
    // Intermediate ones, which the caller sends along.
    Chain chain;
    for (const grpc::string_ref& sent : context.FindPropertyValues(GRPC_X509_PEM_CERT_CHAIN_PROPERTY_NAME)) {
      PemReader text(View(sent));
      while (X509Certificate link = text.NextCertificate()) sk_X509_push(chain.certificates, link.release());
    }
    const X509StoreContext check(X509_STORE_CTX_new());
    if (!check || X509_STORE_CTX_init(check.get(), store_.get(), certificate.get(), chain.certificates) != 1 ||
        X509_STORE_CTX_set_default(check.get(), "ssl_client") != 1) {
      return "the client certificate cannot be checked";
    }
    if (X509_verify_cert(check.get()) == 1) return "";
    return fmt::format("the client certificate is refused: {}",
                       X509_verify_cert_error_string(X509_STORE_CTX_get_error(check.get())));
  }

  const X509Store store_;
  const std::function<void()> refused_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<ClientCertificates>> ClientCertificates::Make(const std::string& authorities,
                                                                             std::function<void()> on_refused) {
  X509Store store(X509_STORE_new());
  PemReader text(authorities);
  int count = 0;
  for (; const X509Certificate authority = text.NextCertificate(); ++count) {
    if (!store || X509_STORE_add_cert(store.get(), authority.get()) != 1) {
      return Error(absl::StatusCode::kInternal, "certificate {} cannot be used", count + 1);
    }
  }
  if (count == 0) return InvalidArgument("no certificate in PEM");
  return std::make_shared<Verifier>(std::move(store), std::move(on_refused));
}

}  // namespace shardmax
