#include "rpc/auth.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <algorithm>
#include <set>
#include <sstream>
#include <utility>

#include "rpc/credentials.h"
#include "worker/base/status.h"
#include "worker/data/quote.h"

namespace shardmax {
namespace {

constexpr size_t kMaxTokensFileBytes = 1 << 20;
constexpr size_t kMaxTokenBytes = 512;
constexpr std::string_view kScheme = "Bearer ";
constexpr std::string_view kPrefix = "smx_";
constexpr std::string_view kBase64Url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

constexpr std::pair<std::string_view, Role> kRoles[] = {
    {"viewer", Role::kViewer}, {"submitter", Role::kSubmitter}, {"admin", Role::kAdmin}, {"worker", Role::kWorker}};

std::string_view NameOf(Role role) {
  for (const auto& [name, value] : kRoles) {
    if (value == role) return name;
  }
  return "";
}

absl::StatusOr<Role> ParseRole(const std::string& text) {
  for (const auto& [name, role] : kRoles) {
    if (name == text) return role;
  }
  return InvalidArgument("the role {} is none of viewer, submitter, admin, worker", Quoted(text));
}

absl::Status CheckName(const std::string& name) {
  const bool sound = !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '@' || c == '-';
  });
  if (sound) return absl::OkStatus();
  return InvalidArgument("the name {} is not 1 to 64 characters of [A-Za-z0-9._@-]", Quoted(name));
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

absl::StatusOr<TokenHash> ParseHash(const std::string& text) {
  TokenHash hash = {};
  bool sound = text.size() == 2 * hash.size();
  for (size_t i = 0; sound && i < hash.size(); ++i) {
    const int high = HexDigit(text[2 * i]);
    const int low = HexDigit(text[2 * i + 1]);
    sound = high >= 0 && low >= 0;
    hash[i] = static_cast<unsigned char>(high * 16 + low);
  }
  if (sound) return hash;
  // What stands here may be a token by mistake: it is not repeated.
  return InvalidArgument("the hash is not 64 hexadecimal digits (shardmax-server --new_token makes the line)");
}

TokenHash HashOf(std::string_view token) {
  TokenHash hash = {};
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), hash.data());
  return hash;
}

absl::StatusOr<TokenEntry> ParseLine(const std::string& line) {
  std::istringstream words(line);
  std::string role;
  std::string name;
  std::string hash;
  std::string rest;
  if (!(words >> role >> name >> hash) || (words >> rest)) return InvalidArgument("give ROLE NAME SHA256HEX");
  TokenEntry entry;
  SHARDMAX_ASSIGN_OR_RETURN(entry.role, ParseRole(role));
  SHARDMAX_RETURN_IF_ERROR(CheckName(name));
  SHARDMAX_ASSIGN_OR_RETURN(entry.hash, ParseHash(hash));
  entry.name = name;
  return entry;
}

bool Allows(Role role, Need need) {
  switch (need) {
    case Need::kView:
      return role != Role::kWorker;
    case Need::kSubmit:
      return role == Role::kSubmitter || role == Role::kAdmin;
    case Need::kPool:
      return role == Role::kWorker;
  }
  return false;
}

std::string_view NeededRoles(Need need) {
  switch (need) {
    case Need::kView:
      return "viewer, submitter or admin";
    case Need::kSubmit:
      return "submitter or admin";
    case Need::kPool:
      return "worker";
  }
  return "";
}

absl::Status Unauthenticated(const char* what) {
  return Error(absl::StatusCode::kUnauthenticated, "{}", what);
}

}  // namespace

absl::StatusOr<std::vector<TokenEntry>> ParseTokens(const std::string& text, const std::string& file) {
  std::vector<TokenEntry> entries;
  std::set<TokenHash> hashes;
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    line = line.substr(0, line.find('#'));
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("{}, line {}", file, number);
    auto entry = ParseLine(line);
    if (!entry.ok()) return Annotate(entry.status(), where);
    if (!hashes.insert(entry->hash).second) return InvalidArgument("{}: this hash stands in a line before", where);
    entries.push_back(*std::move(entry));
  }
  if (entries.empty()) return InvalidArgument("{}: holds no token, so nobody could call", file);
  return entries;
}

absl::StatusOr<NewToken> MakeToken(const std::string& role_and_name) {
  const size_t colon = role_and_name.find(':');
  if (colon == std::string::npos) {
    return InvalidArgument("{} is not ROLE:NAME, for example submitter:ann", Quoted(role_and_name));
  }
  const std::string name = role_and_name.substr(colon + 1);
  SHARDMAX_ASSIGN_OR_RETURN(const Role role, ParseRole(role_and_name.substr(0, colon)));
  SHARDMAX_RETURN_IF_ERROR(CheckName(name));
  std::array<unsigned char, 33> random = {};  // 32 bytes, and one so that base64 comes out even.
  if (RAND_bytes(random.data(), 32) != 1) return absl::InternalError("the system gives no random bytes");
  NewToken made;
  made.token = kPrefix;
  for (size_t i = 0; i < random.size(); i += 3) {
    const unsigned bits = random[i] << 16 | random[i + 1] << 8 | random[i + 2];
    for (int shift = 18; shift >= 0; shift -= 6) made.token += kBase64Url[bits >> shift & 63];
  }
  made.token.pop_back();  // Of the 33rd byte.
  made.line = fmt::format("{} {} ", NameOf(role), name);
  for (const unsigned char byte : HashOf(made.token)) made.line += fmt::format("{:02x}", byte);
  return made;
}

absl::StatusOr<std::unique_ptr<Authenticator>> Authenticator::Make(const std::string& tokens_file) {
  std::unique_ptr<Authenticator> authenticator(new Authenticator(tokens_file));
  SHARDMAX_RETURN_IF_ERROR(authenticator->Reload());
  return authenticator;
}

absl::Status Authenticator::Reload() {
  if (file_.empty()) return absl::OkStatus();
  SHARDMAX_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(file_, kMaxTokensFileBytes));
  SHARDMAX_ASSIGN_OR_RETURN(auto tokens, ParseTokens(text, file_));
  std::lock_guard<std::mutex> lock(mutex_);
  tokens_ = std::move(tokens);
  return absl::OkStatus();
}

bool Authenticator::StillValid(const Caller& caller) const {
  if (caller.anonymous) return true;
  std::lock_guard<std::mutex> lock(mutex_);
  return std::any_of(tokens_.begin(), tokens_.end(), [&](const TokenEntry& entry) {
    return entry.hash == caller.token && entry.role == caller.role && entry.name == caller.name;
  });
}

absl::StatusOr<Caller> Authenticator::Admit(const std::string_view* authorization, Need need) const {
  if (file_.empty()) return Caller{.anonymous = true};
  if (authorization == nullptr) {
    return Unauthenticated("this server needs a token: give --token_file, or set SHARDMAX_TOKEN");
  }
  if (authorization->size() > kMaxTokenBytes || authorization->substr(0, kScheme.size()) != kScheme) {
    return Unauthenticated("the authorization metadata is not \"Bearer TOKEN\"");
  }
  const TokenHash hash = HashOf(authorization->substr(kScheme.size()));
  Caller caller;
  bool found = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const TokenEntry& entry : tokens_) {
      if (CRYPTO_memcmp(entry.hash.data(), hash.data(), hash.size()) != 0) continue;
      caller.name = entry.name;
      caller.role = entry.role;
      caller.token = entry.hash;
      found = true;
    }
  }
  if (!found) return Unauthenticated("the token is not one of this server");
  if (!Allows(caller.role, need)) {
    return Error(absl::StatusCode::kPermissionDenied, "{} is a {}: this call is for {}", caller.name,
                 NameOf(caller.role), NeededRoles(need));
  }
  return caller;
}

}  // namespace shardmax
