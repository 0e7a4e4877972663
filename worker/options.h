// The command line of shardmax-worker.
#pragma once

#include <string>
#include <vector>

namespace shardmax {

// Exit codes of the commands (contract).
inline constexpr int kExitSucceeded = 0;
inline constexpr int kExitJobFailed = 1;
inline constexpr int kExitInvalidUse = 2;
inline constexpr int kExitStopped = 4;

enum class BackendChoice { kAuto, kCpu, kCuda, kReference };
enum class ProgressStyle { kAuto, kBar, kLines, kNone };

struct WorkerOptions {
  std::string job_path;
  std::string output_folder;
  std::vector<std::string> data_roots;
  BackendChoice backend = BackendChoice::kAuto;
  bool resume = false;
  int threads = 0;  // 0: the processors of this rank.
  bool pin_threads = true;
  int timeout_s = 600;  // Longest wait for a peer.
  ProgressStyle progress = ProgressStyle::kAuto;
};

// What a command line means: options to run with, or text to print and an exit code (--help, --version, mistakes).
struct ParsedOptions {
  WorkerOptions options;
  bool run = false;
  int exit_code = kExitSucceeded;
  std::string text;
};

ParsedOptions ParseWorkerOptions(int argc, const char* const* argv);

}  // namespace shardmax
