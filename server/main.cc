// shardmax-server: the control plane.

#include <fmt/format.h>
#include <pthread.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <csignal>
#include <cstdio>
#include <exception>

#include "server/options.h"
#include "server/server.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

// Waits for a signal to end; SIGHUP reads the tokens again.
void RunUntilSignal(Server& server, const sigset_t& signals) {
  for (;;) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) return;
    if (signal != SIGHUP) {
      spdlog::info("signal {}: shutting down; jobs go on", signal);
      return;
    }
    const absl::Status reloaded = server.ReloadTokens();
    if (reloaded.ok()) {
      spdlog::info("read the tokens file again");
    } else {
      spdlog::error("kept the tokens of before: {}", Message(reloaded));
    }
  }
}

int Main(int argc, char** argv) {
  const ParsedServerOptions parsed = ParseServerOptions(argc, argv);
  if (!parsed.run) {
    fmt::print(parsed.exit_code == kExitStopped ? stdout : stderr, "{}", parsed.text);
    return parsed.exit_code;
  }
  // Before any thread starts, as threads inherit the mask.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // A full disk is an error of that write, not the end of the server.
  std::signal(SIGXFSZ, SIG_IGN);
  spdlog::set_default_logger(spdlog::stderr_logger_mt("shardmax-server"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");

  auto server = Server::Start(parsed.options);
  if (!server.ok()) {
    fmt::print(stderr, "shardmax-server: {}\n", Message(server.status()));
    return kExitError;
  }
  fmt::print("shardmax-server: listening on {}, metrics on {}\n", (*server)->listen(), (*server)->metrics());
  std::fflush(stdout);
  RunUntilSignal(**server, signals);
  (*server)->Shutdown();
  return kExitStopped;
}

}  // namespace
}  // namespace shardmax

int main(int argc, char** argv) {
  try {
    return shardmax::Main(argc, argv);
  } catch (const std::exception& error) {
    // Nothing of ours throws: out of memory, or a library.
    fmt::print(stderr, "shardmax-server: {}\n", error.what());
    return shardmax::kExitError;
  }
}
