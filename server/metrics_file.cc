#include "server/metrics_file.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <span>
#include <string_view>

#include "worker/base/status.h"
#include "worker/data/file.h"

namespace shardmax {
namespace {

constexpr int64_t kReadBytes = 64 << 10;

struct Lines {
  std::vector<v1::StepMetrics> steps;
  size_t bytes = 0;   // Of whole lines.
  bool torn = false;  // The first line is none of ours.
};

// Lines that do not parse are passed over.
Lines ParseLines(const std::string& text, int32_t last_step) {
  Lines lines;
  for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', lines.bytes)) {
    v1::StepMetrics step;
    const std::string line = text.substr(lines.bytes, end - lines.bytes);
    const bool sound = google::protobuf::util::JsonStringToMessage(line, &step).ok();
    if (!sound && lines.bytes == 0) lines.torn = true;
    lines.bytes = end + 1;
    if (!sound || step.step() <= last_step) continue;
    last_step = step.step();
    lines.steps.push_back(step);
  }
  return lines;
}

}  // namespace

absl::StatusOr<std::vector<v1::StepMetrics>> MetricsFile::Next() {
  std::vector<v1::StepMetrics> steps;
  for (;;) {
    auto file = File::OpenForReading(path_, Links::kRefuse);
    if (file.status().code() == absl::StatusCode::kNotFound) return steps;
    SHARDMAX_RETURN_IF_ERROR(file.status());
    if (file->size() < offset_) offset_ = 0;
    std::string text(static_cast<size_t>(std::min(kReadBytes, file->size() - offset_)), '\0');
    // The file may be cut between the two looks at it: the next call sees that.
    if (!file->ReadAt(offset_, std::as_writable_bytes(std::span(text))).ok()) return steps;
    const Lines lines = ParseLines(text, last_step_);
    // In the middle of a line: the file was cut and has grown again. From its begin then, passing over what was given.
    if (lines.torn && offset_ > 0 && offset_ != torn_offset_) {
      torn_offset_ = offset_;
      offset_ = 0;
      continue;
    }
    steps = lines.steps;
    if (!steps.empty()) last_step_ = steps.back().step();
    const size_t begin = lines.bytes;
    offset_ += static_cast<int64_t>(begin);
    if (!steps.empty() || begin == 0) return steps;
  }
}

}  // namespace shardmax
