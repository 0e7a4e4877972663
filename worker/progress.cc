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

void Progress::OnGoBack(int64_t step) {
  OnStart(step, total_steps_);
}

bool Progress::Due(bool last) {
  const Clock::time_point now = Clock::now();
  if (style_ == ProgressStyle::kNone || (now < next_ && !last)) return false;
  next_ = now + (style_ == ProgressStyle::kBar ? Clock::duration(kBarPeriod) : Clock::duration(kLinePeriod));
  return true;
}

void Progress::Show(int64_t done, int64_t total, const std::string& text) {
  if (style_ == ProgressStyle::kBar) {
    const auto full = static_cast<size_t>(kBarCells * static_cast<double>(done) / static_cast<double>(total));
    fmt::print(stderr, "\r\033[K[{}{}] {}", std::string(full, '#'), std::string(kBarCells - full, '.'), text);
    in_line_ = true;
  } else {
    fmt::print(stderr, "{}\n", text);
  }
  std::fflush(stderr);
}

void Progress::OnStep(const v1::StepMetrics& metrics, const StepCost& /*cost*/) {
  if (!Due(metrics.step() == total_steps_)) return;
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  const auto done = static_cast<double>(metrics.step() - first_step_);
  const double eta = elapsed / done * static_cast<double>(total_steps_ - metrics.step());
  const std::string text =
      fmt::format("step {}/{}  epoch {}  loss {:.4f}  lr {:.4g}  {:.0f} samples/s  sv {:.2e}  eta {}", metrics.step(),
                  total_steps_, metrics.epoch(), metrics.loss(), metrics.lr(), metrics.samples_per_second(),
                  metrics.support_vector_ratio(), Duration(eta));
  Show(metrics.step(), total_steps_, text);
}

void Progress::OnPairs(int64_t done, int64_t total) {
  if (!counts_pairs_) start_ = Clock::now();  // The first call says that none is done yet.
  counts_pairs_ = true;
  if (done == 0 || !Due(done == total)) return;
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  const double share = static_cast<double>(done) / static_cast<double>(total);
  Show(done, total,
       fmt::format("{:.1f} % of {:.3g} pairs  {:.3g} pairs/s  eta {}", 100 * share, static_cast<double>(total),
                   static_cast<double>(done) / elapsed, Duration(elapsed / share - elapsed)));
}

}  // namespace shardmax
