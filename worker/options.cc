#include "worker/options.h"

#include <CLI/CLI.hpp>
#include <map>
#include <sstream>

namespace shardmax {
namespace {

void Describe(CLI::App& app, WorkerOptions& options) {
  app.set_version_flag("--version", "shardmax-worker " SHARDMAX_VERSION);
  app.add_option("--job", options.job_path, "Job to run: a JobSpec in textproto, or in JSON if the name ends in .json")
      ->required()
      ->type_name("FILE");
  app.add_option("--output", options.output_folder, "Folder of the job: metrics, log and checkpoints; made if absent")
      ->required()
      ->type_name("DIR");
  app.add_flag("--resume", options.resume,
               "Go on from the newest valid checkpoint in --output; from the start if none");
  app.add_option("--data_root", options.data_roots, "Folder that the job's files must lie in; may be repeated")
      ->type_name("DIR");
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
  const std::map<std::string, ProgressStyle> styles = {{"auto", ProgressStyle::kAuto},
                                                       {"bar", ProgressStyle::kBar},
                                                       {"lines", ProgressStyle::kLines},
                                                       {"none", ProgressStyle::kNone}};
  app.add_option("--progress", options.progress, "On stderr: bar, lines, none, or auto (a bar on a terminal)")
      ->transform(CLI::CheckedTransformer(styles).description(""))
      ->type_name("STYLE");
}

}  // namespace

ParsedOptions ParseWorkerOptions(int argc, const char* const* argv) {
  ParsedOptions parsed;
  CLI::App app(
      "Trains a classification head, one shard of its classes on each rank.\n"
      "Launch with mpirun -n N; every rank takes the same options.",
      "shardmax-worker");
  Describe(app, parsed.options);
  try {
    app.parse(argc, argv);
    parsed.run = true;
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    parsed.exit_code = app.exit(error, out, out) == 0 ? kExitSucceeded : kExitInvalidUse;
    parsed.text = out.str();
  }
  return parsed;
}

}  // namespace shardmax
