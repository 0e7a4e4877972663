// The folder of a job: job.json, metrics.jsonl, log.txt and checkpoints/, or result.json of an evaluation (contract).
// Rank 0 writes it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardmax/v1/checkpoint.pb.h"
#include "shardmax/v1/job.pb.h"

namespace spdlog {
class logger;
namespace sinks {
class sink;
}  // namespace sinks
}  // namespace spdlog

namespace shardmax {

class JobFolder {
 public:
  explicit JobFolder(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  std::string checkpoints_folder() const { return path_ + "/checkpoints"; }
  // Of train.storage, while a job starts.
  std::string storage_folder() const { return path_ + "/shards"; }

  std::string spec_path() const { return path_ + "/job.json"; }
  std::string result_path() const { return path_ + "/result.json"; }

  // Makes the folder, if it is not there.
  absl::Status Make() const;

  // FailedPrecondition: it holds metrics, checkpoints or a result. A job that failed before its first step can be
  // started anew.
  absl::Status CheckUnused() const;

  // Writes job.json through a temporary file, and waits until it is on the disk.
  absl::Status WriteSpec(const shardmax::v1::JobSpec& spec) const;

  // Writes result.json likewise.
  absl::Status WriteResult(const std::string& json) const;

  // The spec in job.json. NotFound: there is none.
  absl::StatusOr<shardmax::v1::JobSpec> ReadSpec() const;

  // A logger to log.txt (appended) and to `sinks`.
  absl::StatusOr<std::shared_ptr<spdlog::logger>> OpenLog(
      const std::vector<std::shared_ptr<spdlog::sinks::sink>>& sinks) const;

 private:
  // The file is there whole or not at all.
  absl::Status WriteWhole(const std::string& path, const std::string& text) const;

  std::string path_;
};

// metrics.jsonl: one JSON object a line, each written whole.
class MetricsLog {
 public:
  // Opens the file of `folder` and drops the lines of steps beyond `step`, and whatever is no whole line: a resumed
  // job writes them anew.
  static absl::StatusOr<MetricsLog> Open(const JobFolder& folder, int64_t step);

  MetricsLog(MetricsLog&& other) noexcept;
  MetricsLog& operator=(MetricsLog&&) = delete;
  ~MetricsLog();

  // The last line; step 0 if there is none.
  const shardmax::v1::StepMetrics& last() const { return last_; }

  // Drops the lines of steps beyond `step`.
  absl::Status GoBack(int64_t step);

  absl::Status Append(const shardmax::v1::StepMetrics& metrics);

  // Writes over the last line, in one write. `metrics` is that line with more in it.
  absl::Status ReplaceLast(const shardmax::v1::StepMetrics& metrics);

 private:
  MetricsLog(std::string path, int file) : path_(std::move(path)), file_(file) {}
  // Takes the whole lines of steps up to `step` that the file begins with.
  void ReadUpTo(int64_t step);

  std::string path_;
  int file_;
  shardmax::v1::StepMetrics last_;
  int64_t last_offset_ = 0;  // Bytes before the last line.
  int64_t end_offset_ = 0;   // Bytes of all lines.
};

}  // namespace shardmax
