#include "worker/progress.h"

#include <fmt/format.h>
#include <spdlog/sinks/base_sink.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <string>

namespace shardmax {
namespace {

constexpr int kBarCells = 24;
constexpr std::chrono::milliseconds kBarPeriod(100);
constexpr std::chrono::seconds kLinePeriod(10);

std::string Duration(double seconds) {
  const auto whole = static_cast<int64_t>(seconds);
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

class StderrBelowTheBar final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit StderrBelowTheBar(Progress& progress) : progress_(progress) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    progress_.Break();
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    std::fwrite(line.data(), 1, line.size(), stderr);
  }
  void flush_() override { std::fflush(stderr); }

  Progress& progress_;
};

}  // namespace

Progress::Progress(ProgressStyle style) : style_(style) {
  if (style_ == ProgressStyle::kAuto) {
    style_ = isatty(STDERR_FILENO) != 0 ? ProgressStyle::kBar : ProgressStyle::kLines;
  }
}

Progress::~Progress() {
  Break();
}

void Progress::Break() {
  if (in_line_) std::fputc('\n', stderr);
  in_line_ = false;
}

std::shared_ptr<spdlog::sinks::sink> Progress::NewLogSink() {
  return std::make_shared<StderrBelowTheBar>(*this);
}

void Progress::OnStart(int64_t first_step, int64_t total_steps) {
  first_step_ = first_step;
  total_steps_ = total_steps;
  start_ = next_ = Clock::now();
}

void Progress::OnStep(const v1::StepMetrics& metrics, const StepCost& /*cost*/) {
  const Clock::time_point now = Clock::now();
  const bool last = metrics.step() == total_steps_;
  if (style_ == ProgressStyle::kNone || (now < next_ && !last)) return;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const auto done = static_cast<double>(metrics.step() - first_step_);
  const double eta = elapsed / done * static_cast<double>(total_steps_ - metrics.step());
  const std::string text =
      fmt::format("step {}/{}  epoch {}  loss {:.4f}  lr {:.4g}  {:.0f} samples/s  sv {:.2e}  eta {}", metrics.step(),
                  total_steps_, metrics.epoch(), metrics.loss(), metrics.lr(), metrics.samples_per_second(),
                  metrics.support_vector_ratio(), Duration(eta));
  if (style_ == ProgressStyle::kBar) {
    const auto full = static_cast<size_t>(metrics.step() * kBarCells / total_steps_);
    fmt::print(stderr, "\r\033[K[{}{}] {}", std::string(full, '#'), std::string(kBarCells - full, '.'), text);
    in_line_ = true;
    next_ = now + kBarPeriod;
  } else {
    fmt::print(stderr, "{}\n", text);
    next_ = now + kLinePeriod;
  }
  std::fflush(stderr);
}

}  // namespace shardmax
