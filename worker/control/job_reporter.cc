#include "worker/control/job_reporter.h"

#include <google/protobuf/util/json_util.h>
#include <spdlog/sinks/base_sink.h>

#include <fstream>
#include <mutex>
#include <optional>
#include <string>

namespace shardmax {
namespace {

class DeskSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit DeskSink(LinkDesk& desk) : desk_(desk) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const char* level = message.level >= spdlog::level::err    ? "error"
                        : message.level == spdlog::level::warn ? "warning"
                                                               : "info";
    desk_.AddLog(level, std::string(message.payload.data(), message.payload.size()), message.time);
  }
  void flush_() override {}

 private:
  LinkDesk& desk_;
};

// Of a file of one JSON object a line; none if there is no whole one.
std::optional<v1::StepMetrics> LastMetrics(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string last;
  for (std::string line; std::getline(file, line) && !file.eof();) last = line;
  v1::StepMetrics metrics;
  if (!google::protobuf::util::JsonStringToMessage(last, &metrics).ok() || metrics.step() == 0) return std::nullopt;
  return metrics;
}

}  // namespace

void JobReporter::OnStart(int64_t first_step, int64_t total_steps) {
  desk_.SetTotalSteps(static_cast<int32_t>(total_steps));
  if (first_step > 0) OnGoBack(first_step);
}

void JobReporter::OnGoBack(int64_t step) {
  if (const auto last = LastMetrics(folder_ + "/metrics.jsonl"); last.has_value()) desk_.SetProgress(*last);
  if (step > 0) desk_.SetCheckpoint(static_cast<int32_t>(step), /*bytes=*/0, /*seconds=*/0);
}

void JobReporter::OnStep(const v1::StepMetrics& metrics, const StepCost& /*cost*/) {
  desk_.SetProgress(metrics);
}

void JobReporter::OnCheckpoint(int64_t step, double seconds, int64_t bytes) {
  desk_.SetCheckpoint(static_cast<int32_t>(step), bytes, seconds);
}

void JobReporter::OnPairs(int64_t done, int64_t total) {
  desk_.SetPairs(done, total);
}

std::shared_ptr<spdlog::sinks::sink> NewDeskSink(LinkDesk& desk) {
  return std::make_shared<DeskSink>(desk);
}

}  // namespace shardmax
