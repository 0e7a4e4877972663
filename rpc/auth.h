// Who calls, and what they may do.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shardmax {

enum class Role { kViewer, kSubmitter, kAdmin, kWorker };

// What a call needs.
enum class Need { kView, kSubmit, kPool };

using TokenHash = std::array<unsigned char, 32>;  // SHA-256.

struct Caller {
  std::string name;  // Of the token; empty without tokens.
  Role role = Role::kAdmin;
  bool anonymous = false;  // The server has no tokens: everyone may do everything.
  TokenHash token = {};

  // Whether the caller may change a job of `owner`.
  bool MayChange(const std::string& owner) const { return anonymous || role == Role::kAdmin || name == owner; }
};

struct TokenEntry {
  Role role = Role::kViewer;
  std::string name;
  TokenHash hash = {};
};

// Lines `ROLE NAME SHA256HEX`; "#" begins a comment. InvalidArgument naming `file`, line and field: another role, a
// name that is not 1 to 64 characters of [A-Za-z0-9._@-], a hash that is not 64 hexadecimal digits, the same hash
// twice; or no token at all, which would lock everybody out.
absl::StatusOr<std::vector<TokenEntry>> ParseTokens(const std::string& text, const std::string& file);

// A fresh random token of `role_and_name` ("admin:ann"), and the line of the tokens file that admits it.
struct NewToken {
  std::string token;
  std::string line;
};
absl::StatusOr<NewToken> MakeToken(const std::string& role_and_name);

// Any thread calls.
class Authenticator {
 public:
  // Without a file everyone is an admin and a worker.
  static absl::StatusOr<std::unique_ptr<Authenticator>> Make(const std::string& tokens_file);

  bool has_tokens() const { return !file_.empty(); }

  // The caller of the `authorization` metadata (null: there is none). Unauthenticated without a valid token,
  // PermissionDenied if the role is not what is needed. Takes the same time for every token that is refused.
  absl::StatusOr<Caller> Admit(const std::string_view* authorization, Need need) const;

  // Whether the token that admitted the caller is still there, with the same role.
  bool StillValid(const Caller& caller) const;

  // Reads the file again. On an error the tokens of before stay.
  absl::Status Reload();

 private:
  explicit Authenticator(std::string file) : file_(std::move(file)) {}

  const std::string file_;
  mutable std::mutex mutex_;
  std::vector<TokenEntry> tokens_;
};

}  // namespace shardmax
