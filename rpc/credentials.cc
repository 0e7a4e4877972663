#include "rpc/credentials.h"

#include <grpcpp/security/credentials.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr size_t kMaxTokenBytes = 4096;
constexpr char kSystemAuthorities[] = "/etc/ssl/certs/ca-certificates.crt";

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using OpenFile = std::unique_ptr<std::FILE, CloseFile>;

absl::StatusOr<std::string> ReadPem(const std::string& path, const std::string& option, const std::string& marker) {
  auto text = ReadSmallFile(path, kMaxPemBytes);
  if (!text.ok()) return Annotate(text.status(), option);
  if (text->find(marker) == std::string::npos) {
    return InvalidArgument("{}: {}: no \"{}\" in it: give a PEM file", option, path, marker);
  }
  return text;
}

absl::Status CheckTokenFileMode(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) return ErrnoError(errno, path);
  if (S_ISREG(info.st_mode) && (info.st_mode & (S_IROTH | S_IWOTH)) != 0) {
    return Error(absl::StatusCode::kPermissionDenied,
                 "{}: every user of this machine may read or change this token: chmod o-rw it", path);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes) {
  const OpenFile file(std::fopen(path.c_str(), "rb"));
  if (file == nullptr) return ErrnoError(errno, path);
  std::string text(max_bytes + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  if (std::ferror(file.get()) != 0) return ErrnoError(errno, path);
  if (text.size() > max_bytes) return InvalidArgument("{}: more than {} bytes", path, max_bytes);
  return text;
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ReadCredentials(const ChannelOptions& options) {
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return InvalidArgument("--tls_cert and --tls_key go together: give both or neither");
  }
  if (options.tls_ca.empty()) {
    if (options.tls_cert.empty()) return grpc::InsecureChannelCredentials();
    return InvalidArgument("--tls_cert needs --tls_ca: give the PEM file of the server's authority, or \"system\"");
  }
  constexpr char kCertificate[] = "-----BEGIN CERTIFICATE-----";
  grpc::SslCredentialsOptions ssl;
  const std::string authorities = options.tls_ca == "system" ? kSystemAuthorities : options.tls_ca;
  SHARDMAX_ASSIGN_OR_RETURN(ssl.pem_root_certs, ReadPem(authorities, "--tls_ca", kCertificate));
  if (!options.tls_cert.empty()) {
    SHARDMAX_ASSIGN_OR_RETURN(ssl.pem_cert_chain, ReadPem(options.tls_cert, "--tls_cert", kCertificate));
    SHARDMAX_ASSIGN_OR_RETURN(ssl.pem_private_key, ReadPem(options.tls_key, "--tls_key", "PRIVATE KEY-----"));
  }
  return grpc::SslCredentials(ssl);
}

absl::StatusOr<std::string> ReadToken(const std::string& token_file) {
  std::string text;
  std::string source = "SHARDMAX_TOKEN";
  if (!token_file.empty()) {
    source = token_file;
    SHARDMAX_RETURN_IF_ERROR(Annotate(CheckTokenFileMode(token_file), "--token_file"));
    auto read = ReadSmallFile(token_file, kMaxTokenBytes);
    if (!read.ok()) return Annotate(read.status(), "--token_file");
    text = *std::move(read);
  } else if (const char* value = std::getenv("SHARDMAX_TOKEN"); value != nullptr) {
    text = value;
  }
  const auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  const auto first = std::find_if_not(text.begin(), text.end(), is_space);
  const auto end = std::find_if_not(text.rbegin(), std::make_reverse_iterator(first), is_space).base();
  std::string token(first, end);
  if (token.empty() && !token_file.empty()) return InvalidArgument("--token_file: {}: holds no token", source);
  const auto is_odd = [](char c) { return c <= ' ' || c > '~'; };
  if (token.size() > kMaxTokenBytes || std::any_of(token.begin(), token.end(), is_odd)) {
    return InvalidArgument("{}: not a token: one word of at most {} printable ASCII characters", source,
                           kMaxTokenBytes);
  }
  return token;
}

}  // namespace shardmax
