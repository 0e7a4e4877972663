// Reads a job's metrics.jsonl while a worker writes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "shardmax/v1/checkpoint.pb.h"

namespace shardmax {

// Gives each step once, in ascending order, although a resumed job cuts the file and writes the same steps again. Not
// thread-safe.
class MetricsFile {
 public:
  MetricsFile(std::string path, int32_t after_step) : path_(std::move(path)), last_step_(after_step) {}

  // The next lines, some hundreds at most; none at the end of the file, or if there is none yet.
  absl::StatusOr<std::vector<shardmax::v1::StepMetrics>> Next();

 private:
  std::string path_;
  int32_t last_step_;
  int64_t offset_ = 0;        // Of the first line that was not read.
  int64_t torn_offset_ = -1;  // Where no line began: not looked at again.
};

}  // namespace shardmax
