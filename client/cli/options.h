// The command line of shardmax.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "shardmax/client.h"
#include "shardmax/v1/control.pb.h"

namespace CLI {  // NOLINT(readability-identifier-naming): of CLI11.
class App;
}  // namespace CLI

namespace shardmax {

// Exit codes (contract).
inline constexpr int kExitSucceeded = 0;      // The job succeeded, or the command did what it was asked to.
inline constexpr int kExitFailed = 1;         // The job failed, or the command did.
inline constexpr int kExitInvalidUse = 2;     // Wrong usage, invalid spec, unknown job, not allowed.
inline constexpr int kExitNotReachable = 3;   // No answer from the server.
inline constexpr int kExitStopped = 4;        // The job was stopped.
inline constexpr int kExitInterrupted = 130;  // Ctrl-C, as shells have it.

enum class Verb {
  kNone,
  kSubmit,
  kStatus,
  kList,
  kLogs,
  kWatch,
  kStop,
  kDelete,
  kCheckpoints,
  kExport,
  kPools,
  kPlot,
  kCompletion
};

struct CliOptions {
  Verb verb = Verb::kNone;

  // Of every verb.
  std::string server;  // Of --server, SHARDMAX_SERVER, or the default.
  std::string tls_ca;
  std::string tls_cert;
  std::string tls_key;
  std::string token_file;
  int timeout_s = 10;
  bool json = false;

  // Of some.
  std::string file;             // submit
  std::string idempotency_key;  // submit
  std::string job;
  bool wait = false;                                 // submit, stop
  int reconnect_s = 600;                             // Those that wait.
  std::vector<v1::JobState> states;                  // list
  std::string name;                                  // list
  std::string pool;                                  // list
  int64_t limit = 0;                                 // list; 0: all
  bool ids = false;                                  // list
  bool follow = false;                               // logs
  bool now = false;                                  // checkpoints
  int32_t step = 0;                                  // export; 0: the newest
  std::string output;                                // export, plot
  WeightFormat format = WeightFormat::kSafetensors;  // export
  std::string shell;                                 // completion
};

// The tree of verbs and options, bound to `options`, which must outlive it.
std::shared_ptr<CLI::App> MakeApp(CliOptions& options);

// What a command line means: options to run with, or text to print and an exit code (--help, --version, mistakes).
struct ParsedCommand {
  CliOptions options;
  bool run = false;
  int exit_code = kExitSucceeded;
  std::string text;
};

ParsedCommand ParseCommandLine(int argc, const char* const* argv);

}  // namespace shardmax
