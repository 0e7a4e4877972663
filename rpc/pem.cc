#include "rpc/pem.h"

#include <openssl/pem.h>

namespace shardmax {
namespace {

int NoPassword(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*data*/) {
  return 0;
}

}  // namespace

PemReader::PemReader(std::string_view text) : text_(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))) {}

X509Certificate PemReader::NextCertificate() {
  return X509Certificate(PEM_read_bio_X509(text_.get(), nullptr, NoPassword, nullptr));
}

PrivateKey PemReader::NextPrivateKey() {
  return PrivateKey(PEM_read_bio_PrivateKey(text_.get(), nullptr, NoPassword, nullptr));
}

}  // namespace shardmax
