// The command line of head_bench.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "shardmax/v1/job.pb.h"
#include "worker/engine/engine.h"

namespace shardmax::bench {

struct BenchOptions {
  int64_t classes = 100000;
  int64_t dim = 512;
  int64_t batch = 256;
  int ranks = 1;
  int threads = 2;
  Precision precision = Precision::kFloat32;
  CosineStorage cosines = CosineStorage::kRecompute;
  StateType state = StateType::kFloat32;
  double sample_rate = 1;
  bool nearest = false;  // Else drawn at random.
  int64_t neighbours = 64;
  shardmax::v1::Preset preset = shardmax::v1::SV_AM_SOFTMAX;
  int steps = 10;
  int64_t check_classes = 4096;
  int64_t tile_classes = 0;  // 0: as the engine chooses.
  bool pin_threads = true;
  bool gather_ahead = false;  // The next step's rows while the weights are updated, as in jobs on datasets.
  bool json = false;
};

// What a command line means: options to run with, or text to print and an exit code (0 for --help, 2 for a mistake).
struct ParsedBenchOptions {
  BenchOptions options;
  bool run = false;
  int exit_code = 0;
  std::string text;
};

ParsedBenchOptions ParseBenchOptions(int argc, const char* const* argv);

}  // namespace shardmax::bench
