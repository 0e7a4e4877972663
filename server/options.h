// The command line of shardmax-server.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "server/gate.h"

namespace shardmax {

inline constexpr int kExitStopped = 0;  // As asked.
inline constexpr int kExitError = 1;
inline constexpr int kExitUsage = 2;

struct ServerOptions {
  std::string listen = "127.0.0.1:7700";
  std::string metrics_listen = "127.0.0.1:7701";
  std::string state_dir;
  std::vector<std::string> data_roots;
  std::string tls_cert;
  std::string tls_key;
  std::string tls_client_ca;
  std::string tokens_file;
  bool insecure = false;
  std::chrono::milliseconds pool_grace{30'000};
  std::chrono::milliseconds heartbeat{2000};
  Limits limits;
};

// What a command line means: options to run with, or text to print and an exit code (--help, --version, --new_token,
// mistakes).
struct ParsedServerOptions {
  ServerOptions options;
  bool run = false;
  int exit_code = kExitStopped;
  std::string text;
};

ParsedServerOptions ParseServerOptions(int argc, const char* const* argv);

}  // namespace shardmax
