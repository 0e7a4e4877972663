#include "worker/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <map>
#include <sstream>

#include "worker/data/quote.h"
#include "worker/spec/text.h"

namespace shardmax {
namespace {

void DescribeJob(CLI::App& app, WorkerOptions& options) {
  app.add_option("--job", options.job_path, "Job to run: a JobSpec in textproto, or in JSON if the name ends in .json")
      ->type_name("FILE");
  app.add_option("--output", options.output_folder, "Folder of the job: metrics, log and checkpoints; made if absent")
      ->type_name("DIR");
  app.add_flag("--resume", options.resume,
               "Go on from the newest valid checkpoint in --output; from the start if none");
  app.add_option(
         "--dry_run", options.dry_run_ranks,
         "Print what the job needs and does on so many ranks with a GPU each, and end: memory, bytes, operations")
      ->check(CLI::Range(1, 1 << 20).description(""))
      ->type_name("RANKS");
  app.add_option("--data_root", options.data_roots, "Folder that the job's files must lie in; may be repeated")
      ->type_name("DIR");
  const std::map<std::string, ProgressStyle> styles = {{"auto", ProgressStyle::kAuto},
                                                       {"bar", ProgressStyle::kBar},
                                                       {"lines", ProgressStyle::kLines},
                                                       {"none", ProgressStyle::kNone}};
  app.add_option("--progress", options.progress, "On stderr: bar, lines, none, or auto (a bar on a terminal)")
      ->transform(CLI::CheckedTransformer(styles).description(""))
      ->type_name("STYLE");
}

void DescribePool(CLI::App& app, WorkerOptions& options) {
  app.add_option("--pool", options.pool, "Serve as the pool of this name; jobs come from --server")->type_name("NAME");
  app.add_option("--server", options.server,
                 "Server of the pool (default: SHARDMAX_SERVER of the environment, or 127.0.0.1:7700)")
      ->type_name("HOST:PORT");
  app.add_option("--tls_ca", options.tls_ca, "PEM file of the server's authority, or system; without it no TLS")
      ->type_name("FILE");
  app.add_option("--tls_cert", options.tls_cert, "PEM file of the pool's own certificate, for mutual TLS")
      ->type_name("FILE");
  app.add_option("--tls_key", options.tls_key, "PEM file of its key")->type_name("FILE");
  app.add_option("--token_file", options.token_file,
                 "File with the pool's token (default: SHARDMAX_TOKEN of the environment)")
      ->type_name("FILE");
}

void DescribeRank(CLI::App& app, WorkerOptions& options) {
  const std::map<std::string, BackendChoice> backends = {{"auto", BackendChoice::kAuto},
                                                         {"cpu", BackendChoice::kCpu},
                                                         {"cuda", BackendChoice::kCuda},
                                                         {"reference", BackendChoice::kReference}};
  app.add_option("--backend", options.backend, "Engine: auto, cpu, cuda, or reference (float64, slow)")
      ->transform(CLI::CheckedTransformer(backends).description(""))
      ->type_name("NAME");
  app.add_option("--threads", options.threads, "Compute threads of each rank (default: its processors)")
      ->check(CLI::Range(1, 1024).description(""))
      ->type_name("N");
  app.add_option("--pin_threads", options.pin_threads,
                 "Bind threads to processors where they are as many as the rank's: true (default) or false")
      ->type_name("BOOL");
  app.add_option("--timeout_s", options.timeout_s, "Longest wait for another rank, in seconds (default: 600)")
      ->check(CLI::Range(1, 86400).description(""))
      ->type_name("SECONDS");
  app.add_option("--metrics_port_base", options.metrics_port_base,
                 "Rank r serves metrics for Prometheus at this port + r; 0: at any (default: 7710, any if busy)")
      ->check(CLI::Range(0, 65535).description(""))
      ->type_name("PORT");
  app.add_option(
         "--advertise_host", options.advertise_host,
         "Host under which Prometheus finds the metrics of the ranks (default: 127.0.0.1 with --job or a server "
         "on this machine, else each rank's host name)")
      ->type_name("HOST");
}

void DescribeDataPlane(CLI::App& app, WorkerOptions& options) {
  app.add_option("--data_port_base", options.data_port_base,
                 "Rank r serves the trainers of live jobs at this port + r; 0: at any (default: 7800, any if busy)")
      ->check(CLI::Range(0, 65535).description(""))
      ->type_name("PORT");
  app.add_option("--data_listen", options.data_listen, "Address to serve them at (default: 127.0.0.1)")
      ->type_name("HOST");
  app.add_option("--data_tls_cert", options.data_tls_cert, "PEM file of the certificate for trainers, with its chain")
      ->type_name("FILE");
  app.add_option("--data_tls_key", options.data_tls_key, "PEM file of its key")->type_name("FILE");
  app.add_option("--data_tls_client_ca", options.data_tls_client_ca,
                 "PEM file of the authorities that must have signed every trainer's certificate")
      ->type_name("FILE");
  app.add_option("--data_tokens_file", options.data_tokens_file,
                 "Tokens of the trainers, as the server's --tokens_file; roles submitter and admin may train")
      ->type_name("FILE");
  app.add_flag("--insecure", options.insecure, "Let --data_listen be reached by other machines without TLS");
}

// Why the options do not go together; empty if they do. Sets the mode.
std::string Contradiction(const CLI::App& app, WorkerOptions& options) {
  const auto given = [&](const char* name) { return app.count(name) > 0; };
  const bool pool = given("--pool") || given("--server");
  options.mode = pool ? WorkerMode::kPool : WorkerMode::kJob;
  if (pool && (given("--job") || given("--output"))) {
    return "--job runs one job, --server and --pool serve a pool: give one or the other";
  }
  if (!pool && !given("--job") && !given("--output")) {
    return "nothing to do: give --job and --output to run one job, or --server and --pool to serve a pool";
  }
  if (!pool && !given("--job")) return "--output needs --job: the job to run";
  if (!pool && !given("--output")) return "--job needs --output: the folder of the job";
  if (pool && !given("--pool")) return "--server needs --pool: the name of this pool";
  for (const char* name : {"--resume", "--data_root", "--progress"}) {
    if (pool && given(name)) return fmt::format("{} is of --job: the server decides that for a pool", name);
  }
  for (const char* name : {"--tls_ca", "--tls_cert", "--tls_key", "--token_file"}) {
    if (!pool && given(name)) return fmt::format("{} is of a pool: --job speaks to no server", name);
  }
  if (given("--data_tls_cert") != given("--data_tls_key")) {
    return "--data_tls_cert and --data_tls_key go together: give both or neither";
  }
  if (given("--data_tls_client_ca") && !given("--data_tls_cert")) {
    return "--data_tls_client_ca needs --data_tls_cert and --data_tls_key";
  }
  if (pool && !IsName(options.pool)) {
    return fmt::format("--pool is {}: allowed is 1 to 64 characters of [A-Za-z0-9._-], starting with a letter or digit",
                       Quoted(options.pool));
  }
  return "";
}

}  // namespace

std::string BackendName(BackendChoice backend) {
  switch (backend) {
    case BackendChoice::kReference:
      return "reference";
    case BackendChoice::kCuda:
      return "cuda";
    default:
      return "cpu";
  }
}

std::string WorkerVersion() {
  return SHARDMAX_VERSION;
}

ParsedOptions ParseWorkerOptions(int argc, const char* const* argv) {
  ParsedOptions parsed;
  CLI::App app(
      "Trains a classification head, one shard of its classes on each rank.\n"
      "Launch with mpirun -n N; every rank takes the same options.",
      "shardmax-worker");
  app.set_version_flag("--version", "shardmax-worker " + WorkerVersion());
  DescribeJob(app, parsed.options);
  DescribePool(app, parsed.options);
  DescribeRank(app, parsed.options);
  DescribeDataPlane(app, parsed.options);
  try {
    app.parse(argc, argv);
    const std::string contradiction = Contradiction(app, parsed.options);
    if (!contradiction.empty()) throw CLI::ValidationError(contradiction);
    const char* server = std::getenv("SHARDMAX_SERVER");
    if (parsed.options.server.empty() && server != nullptr) parsed.options.server = server;
    parsed.run = true;
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    parsed.exit_code = app.exit(error, out, out) == 0 ? kExitSucceeded : kExitInvalidUse;
    parsed.text = out.str();
  }
  return parsed;
}

}  // namespace shardmax
