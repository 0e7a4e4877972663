// Certificates and keys in PEM, owned.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509_vfy.h>

#include <memory>
#include <string_view>

namespace shardmax {

template <auto free>
struct FreeBy {
  template <typename T>
  void operator()(T* object) const {
    free(object);
  }
};
using X509Certificate = std::unique_ptr<X509, FreeBy<X509_free>>;
using X509Store = std::unique_ptr<X509_STORE, FreeBy<X509_STORE_free>>;
using X509StoreContext = std::unique_ptr<X509_STORE_CTX, FreeBy<X509_STORE_CTX_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, FreeBy<EVP_PKEY_free>>;

// Reads what a text holds one after the other. The text must outlive it.
class PemReader {
 public:
  explicit PemReader(std::string_view text);

  // The next one; null at the end, and where there is none.
  X509Certificate NextCertificate();
  // Null also for a key with a password, which is not asked for.
  PrivateKey NextPrivateKey();

 private:
  std::unique_ptr<BIO, FreeBy<BIO_free>> text_;
};

}  // namespace shardmax
