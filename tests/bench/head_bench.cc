// head_bench: a step of the head, timed beside the limits of the machine. See --help and docs/performance.md.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/bench/bench_options.h"
#include "tests/bench/bench_run.h"
#include "worker/base/status.h"
#include "worker/comm/mpi_comm.h"

namespace shardmax::bench {
namespace {

using Json = nlohmann::ordered_json;

// Set for the ranks that head_bench starts.
constexpr char kRankVariable[] = "SHARDMAX_HEAD_BENCH_RANK";

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Json PhaseJson(const std::vector<PhaseSeconds>& phases) {
  const auto median = [&](double PhaseSeconds::*phase) {
    std::vector<double> values;
    for (const PhaseSeconds& seconds : phases) values.push_back(seconds.*phase);
    return Median(values);
  };
  return {{"gather", median(&PhaseSeconds::gather)},     {"label", median(&PhaseSeconds::label)},
          {"score", median(&PhaseSeconds::score)},       {"normalise", median(&PhaseSeconds::normalise)},
          {"backward", median(&PhaseSeconds::backward)}, {"scatter", median(&PhaseSeconds::scatter)}};
}

// Measures everything; the object to print. Collective.
absl::StatusOr<Json> Measure(Communicator& comm, const BenchOptions& options, const std::vector<int>& processors) {
  const std::vector<int> pinned = options.pin_threads ? processors : std::vector<int>();
  MachineLimits limits;
  {
    ThreadPool pool(options.threads, pinned);
    SHARDMAX_ASSIGN_OR_RETURN(limits, MeasureLimits(comm, pool));
  }
  SHARDMAX_ASSIGN_OR_RETURN(const StepTimes times, TimeSteps(comm, options, processors));
  SHARDMAX_ASSIGN_OR_RETURN(const int64_t peak_bytes, PeakResidentBytes(comm));
  {
    ThreadPool pool(options.threads, pinned);
    SHARDMAX_ASSIGN_OR_RETURN(limits.fma_gflops, FmaPeakAgain(comm, pool, limits.fma_gflops));
  }
  SHARDMAX_ASSIGN_OR_RETURN(const double error, FeatureGradientError(comm, options, processors));

  const double operations = 3 * 2.0 * static_cast<double>(options.batch) * static_cast<double>(options.classes) *
                            static_cast<double>(options.dim);
  const double median = Median(times.seconds);
  const double bound = operations / limits.fma_gflops / 1e9;
  Json json;
  json["step_seconds"] = {{"median", median},
                          {"min", *std::min_element(times.seconds.begin(), times.seconds.end())},
                          {"max", *std::max_element(times.seconds.begin(), times.seconds.end())}};
  json["phase_seconds"] = PhaseJson(times.phases);
  json["peak_rss_bytes"] = peak_bytes;
  json["gflops"] = operations / median / 1e9;
  json["fma_peak_gflops"] = limits.fma_gflops;
  json["bound_ratio"] = median / bound;
  json["max_relative_error_dx"] = error;
  json["collectives"] = times.collectives;
  json["collective_bytes"] = times.collective_bytes;
  // What the ratio would be if this program alone had the machine; waits left out.
  json["processor_bound_ratio"] = Median(times.processor_seconds) / bound;
  json["bf16_dot_peak_gflops"] = limits.bfloat16_dot_gflops.has_value() ? Json(*limits.bfloat16_dot_gflops) : Json();
  json["copy_gigabytes_per_second"] = limits.copy_gigabytes_per_second;
  json["checked_classes"] = std::min(options.classes, options.check_classes);
  if (times.rebuild_seconds.has_value()) json["rebuild_seconds"] = *times.rebuild_seconds;
  json["engine"] = times.engine;
  return json;
}

int RunRank(int argc, char** argv, const BenchOptions& options) {
  auto session = MpiSession::Start(&argc, &argv);
  if (!session.ok()) {
    fmt::print(stderr, "head_bench: {}\n", Message(session.status()));
    return 1;
  }
  MpiSession& mpi = **session;
  absl::StatusOr<Json> json;
  {
    auto comm = mpi.NewCommunicator(std::chrono::minutes(30));
    json = comm.ok() ? Measure(**comm, options, mpi.processors()) : absl::StatusOr<Json>(comm.status());
  }
  if (!json.ok()) {
    fmt::print(stderr, "head_bench: rank {}: {}\n", mpi.rank(), Message(json.status()));
    mpi.Abort(1);
  }
  if (mpi.rank() == 0 && options.json) fmt::print("{}\n", json->dump(2));
  if (mpi.rank() == 0 && !options.json) {
    for (const auto& [key, value] : json->items()) fmt::print("{:28} {}\n", key, value.dump());
  }
  return mpi.Close().ok() ? 0 : 1;
}

// Becomes mpirun, which starts this program again as every rank. Returns only if that failed.
int Launch(int argc, char** argv, int ranks) {
  setenv(kRankVariable, "1", 1);
  std::vector<std::string> words = {SHARDMAX_MPIRUN, "-n", std::to_string(ranks), "/proc/self/exe"};
  std::string self(4096, '\0');
  const ssize_t length = readlink("/proc/self/exe", self.data(), self.size());
  if (length > 0) words.back() = self.substr(0, static_cast<size_t>(length));
  words.insert(words.end(), argv + 1, argv + argc);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  execv(SHARDMAX_MPIRUN, arguments.data());
  fmt::print(stderr, "head_bench: cannot run {}\n", SHARDMAX_MPIRUN);
  return 1;
}

int Main(int argc, char** argv) {
  const ParsedBenchOptions parsed = ParseBenchOptions(argc, argv);
  if (!parsed.run) {
    fmt::print(parsed.exit_code == 0 ? stdout : stderr, "{}", parsed.text);
    return parsed.exit_code;
  }
  return std::getenv(kRankVariable) == nullptr ? Launch(argc, argv, parsed.options.ranks)
                                               : RunRank(argc, argv, parsed.options);
}

}  // namespace
}  // namespace shardmax::bench

int main(int argc, char** argv) {
  return shardmax::bench::Main(argc, argv);
}
