// The command line of shardmax-worker.
#pragma once

#include <optional>
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

// What a worker does: run one job, or serve a pool of a server.
enum class WorkerMode { kJob, kPool };

struct WorkerOptions {
  WorkerMode mode = WorkerMode::kJob;
  std::string job_path;
  std::string output_folder;
  std::vector<std::string> data_roots;
  BackendChoice backend = BackendChoice::kAuto;
  bool resume = false;
  int dry_run_ranks = 0;  // Not 0: print the cost of the job on so many ranks instead of running it.
  int threads = 0;        // 0: the processors of this rank.
  bool pin_threads = true;
  int timeout_s = 600;  // Longest wait for a peer.
  ProgressStyle progress = ProgressStyle::kAuto;

  // Of a pool.
  std::string server;  // HOST:PORT; empty: the default.
  std::string pool;
  std::string tls_ca;
  std::string tls_cert;
  std::string tls_key;
  std::string token_file;

  // Metrics.
  std::optional<int>
      metrics_port_base;       // Rank r serves at this + r; 0: at any port. None: the default, or any if busy.
  std::string advertise_host;  // Where the metrics of this rank are found; empty: as the server's address says.

  // The data plane, of live jobs.
  std::optional<int> data_port_base;  // As metrics_port_base.
  std::string data_listen = "127.0.0.1";
  std::string data_tls_cert;
  std::string data_tls_key;
  std::string data_tls_client_ca;
  std::string data_tokens_file;
  bool insecure = false;
};

// "cpu", "cuda" or "reference": what the choice comes to where no rank has a device.
std::string BackendName(BackendChoice backend);

std::string WorkerVersion();

// What a command line means: options to run with, or text to print and an exit code (--help, --version, mistakes).
struct ParsedOptions {
  WorkerOptions options;
  bool run = false;
  int exit_code = kExitSucceeded;
  std::string text;
};

ParsedOptions ParseWorkerOptions(int argc, const char* const* argv);

}  // namespace shardmax
