#include "rpc/client_certificates.h"

#include <grpc/grpc_security_constants.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>

#include <utility>

#include "worker/base/status.h"

namespace shardmax {
namespace {

template <auto free>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    free(object);
  }
};
using Bio = std::unique_ptr<BIO, Free<BIO_free>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Store = std::unique_ptr<X509_STORE, Free<X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, Free<X509_STORE_CTX_free>>;

struct Chain {
  STACK_OF(X509) * certificates = sk_X509_new_null();

  Chain() = default;
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;
  ~Chain() { sk_X509_pop_free(certificates, X509_free); }
};

Bio Open(const grpc::string_ref& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// The next certificate in PEM; null at the end, or where there is none.
Certificate Next(const Bio& text) {
  return Certificate(PEM_read_bio_X509(text.get(), nullptr, nullptr, nullptr));
}

class Verifier final : public ClientCertificates {
 public:
  Verifier(Store store, std::function<void()> on_refused) : store_(std::move(store)), refused_(std::move(on_refused)) {}

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
    const Certificate certificate = Next(Open(own.front()));
    if (!certificate) return "the client certificate cannot be read";
    // Intermediate ones, which the caller sends along.
    Chain chain;
    for (const grpc::string_ref& sent : context.FindPropertyValues(GRPC_X509_PEM_CERT_CHAIN_PROPERTY_NAME)) {
      const Bio text = Open(sent);
      while (Certificate link = Next(text)) sk_X509_push(chain.certificates, link.release());
    }
    const StoreContext check(X509_STORE_CTX_new());
    if (!check || X509_STORE_CTX_init(check.get(), store_.get(), certificate.get(), chain.certificates) != 1 ||
        X509_STORE_CTX_set_default(check.get(), "ssl_client") != 1) {
      return "the client certificate cannot be checked";
    }
    if (X509_verify_cert(check.get()) == 1) return "";
    return fmt::format("the client certificate is refused: {}",
                       X509_verify_cert_error_string(X509_STORE_CTX_get_error(check.get())));
  }

  const Store store_;
  const std::function<void()> refused_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<ClientCertificates>> ClientCertificates::Make(const std::string& authorities,
                                                                             std::function<void()> on_refused) {
  Store store(X509_STORE_new());
  const Bio text = Open(authorities);
  int count = 0;
  for (; const Certificate authority = Next(text); ++count) {
    if (!store || X509_STORE_add_cert(store.get(), authority.get()) != 1) {
      return Error(absl::StatusCode::kInternal, "certificate {} cannot be used", count + 1);
    }
  }
  if (count == 0) return InvalidArgument("no certificate in PEM");
  return std::make_shared<Verifier>(std::move(store), std::move(on_refused));
}

}  // namespace shardmax
