// The measurements of head_bench, on every rank.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/bench/bench_options.h"
#include "worker/base/thread_pool.h"
#include "worker/comm/communicator.h"
#include "worker/head/sharded_head.h"

namespace shardmax::bench {

// Of all ranks together; the peaks are sums over ranks that measured at the same time.
struct MachineLimits {
  double fma_gflops = 0;
  std::optional<double> bfloat16_dot_gflops;
  double copy_gigabytes_per_second = 0;
};

struct StepTimes {
  std::vector<double> seconds;            // Of each step, on the slowest rank.
  std::vector<double> processor_seconds;  // Of each step: processor time of all ranks over all their threads.
  std::vector<PhaseSeconds> phases;       // Of each step, on rank 0.
  double collectives = 0;                 // Of one step.
  double collective_bytes = 0;            // Of one step: what rank 0 contributed.
  std::string engine;                     // What the engine says of itself.
  std::optional<double> rebuild_seconds;  // Of the graph of nearest classes, on the slowest rank.
};

// All collective: every rank calls.

absl::StatusOr<MachineLimits> MeasureLimits(Communicator& comm, ThreadPool& pool);

// The larger of `before` and what the multiply-adds reach now: the clock of a machine drifts.
absl::StatusOr<double> FmaPeakAgain(Communicator& comm, ThreadPool& pool, double before);

absl::StatusOr<StepTimes> TimeSteps(Communicator& comm, const BenchOptions& options,
                                    const std::vector<int>& processors);

// One step on options.check_classes classes with this engine and with the reference engine: the largest difference of a
// feature gradient, over the largest gradient.
absl::StatusOr<double> FeatureGradientError(Communicator& comm, const BenchOptions& options,
                                            const std::vector<int>& processors);

// The sum over ranks of the most memory that each had resident so far.
absl::StatusOr<int64_t> PeakResidentBytes(Communicator& comm);

}  // namespace shardmax::bench
