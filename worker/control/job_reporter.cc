#include "worker/control/job_reporter.h"

#include <spdlog/sinks/base_sink.h>

#include <mutex>
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

}  // namespace

void JobReporter::OnStart(int64_t /*first_step*/, int64_t total_steps) {
  desk_.SetTotalSteps(static_cast<int32_t>(total_steps));
}

void JobReporter::OnStep(const v1::StepMetrics& metrics, const StepCost& /*cost*/) {
  desk_.SetProgress(metrics);
}

void JobReporter::OnCheckpoint(int64_t step, double seconds, int64_t bytes) {
  desk_.SetCheckpoint(static_cast<int32_t>(step), bytes, seconds);
}

std::shared_ptr<spdlog::sinks::sink> NewDeskSink(LinkDesk& desk) {
  return std::make_shared<DeskSink>(desk);
}

}  // namespace shardmax
