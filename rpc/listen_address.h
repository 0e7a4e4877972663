// HOST:PORT to listen at, and whether strangers can reach it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shardmax {

struct ListenAddress {
  std::string host;  // Without brackets.
  int port = 0;      // 0: any.

  // "HOST:PORT", or "[IPv6]:PORT".
  std::string Text() const;
};

// InvalidArgument naming `option`.
absl::StatusOr<ListenAddress> ParseListenAddress(const std::string& option, const std::string& text);

// Whether every address that the host stands for is of this machine's loopback. NotFound naming `option` if the host
// is unknown.
absl::StatusOr<bool> IsLoopback(const std::string& option, const ListenAddress& address);

// OK if the address is loopback; else FailedPrecondition that says what to do.
absl::Status RequireLoopback(const std::string& option, const ListenAddress& address, const std::string& what_to_do);

}  // namespace shardmax
