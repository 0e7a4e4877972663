#include "client/cli/session.h"

#include <fmt/format.h>

#include <memory>
#include <mutex>

#include "client/cli/text.h"
#include "rpc/channel.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string HintForUnavailable(const std::string& message, const CliOptions& options) {
  if (Contains(message, "unknown whether")) return "Look before you repeat it: shardmax list";
  if (!options.tls_ca.empty()) {
    return "Does the server use TLS, and is --tls_ca its authority? With mutual TLS give --tls_cert and --tls_key.";
  }
  if (Contains(message, "Connection refused") || Contains(message, "connect")) {
    return "Is it running? Start one with: shardmax-server --state_dir=DIR --data_root=DIR\n"
           "  or name another with --server=HOST:PORT or SHARDMAX_SERVER.";
  }
  return "Is it running? If it uses TLS, give --tls_ca.";
}

std::string Hint(const absl::Status& status, const std::string& message, const CliOptions& options) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return HintForUnavailable(message, options);
    case absl::StatusCode::kDeadlineExceeded:
      return fmt::format("It took longer than {} s: give it more with --timeout_s.", options.timeout_s);
    case absl::StatusCode::kUnauthenticated:
      if (Contains(message, "client certificate")) {
        return "Give the certificate and key that you have for this server with --tls_cert=FILE and --tls_key=FILE.";
      }
      return "Give a token of this server with --token_file=FILE or SHARDMAX_TOKEN; its administrator makes one with\n"
             "  shardmax-server --new_token=ROLE:NAME";
    case absl::StatusCode::kNotFound:
      // Not for a file that is missing.
      return !options.job.empty() && Contains(message, options.job) ? "See which there are: shardmax list" : "";
    default:
      return "";
  }
}

}  // namespace

int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitSucceeded;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kExitNotReachable;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return kExitInvalidUse;
    case absl::StatusCode::kCancelled:
      return kExitInterrupted;
    default:
      return kExitFailed;
  }
}

int ExitCodeOf(v1::JobState state) {
  switch (state) {
    case v1::SUCCEEDED:
      return kExitSucceeded;
    case v1::STOPPED:
      return kExitStopped;
    default:
      return kExitFailed;
  }
}

std::string ErrorText(const absl::Status& status, const CliOptions& options) {
  const std::string message = Message(status);
  std::string text = "shardmax: " + HarmlessLines(message, 2) + "\n";
  const std::string hint = Hint(status, message, options);
  return hint.empty() ? text : text + "  " + hint + "\n";
}

int Fail(const Session& session, const absl::Status& status) {
  session.err.Print(ErrorText(status, session.options));
  return ExitCodeOf(status);
}

absl::StatusOr<std::unique_ptr<Client>> MakeClient(const CliOptions& options) {
  ClientOptions to;
  to.server = options.server;
  to.tls_ca = options.tls_ca;
  to.tls_cert = options.tls_cert;
  to.tls_key = options.tls_key;
  SHARDMAX_ASSIGN_OR_RETURN(to.token, ReadToken(options.token_file));
  to.timeout = std::chrono::seconds(options.timeout_s);
  // Of many tries only the first is worth a word.
  to.on_retry = [told = std::make_shared<std::once_flag>(), &options](const absl::Status&) {
    std::call_once(*told, [&options] {
      Terminal(stderr).Print(fmt::format("shardmax: no answer from the server at {}, trying again for {} s\n",
                                         Harmless(options.server), options.timeout_s));
    });
  };
  return Client::Create(std::move(to));
}

}  // namespace shardmax
