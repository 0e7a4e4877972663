#include "client/cli/job_display.h"

#include <fmt/format.h>

#include <ctime>

#include "client/cli/job_text.h"
#include "client/cli/text.h"

namespace shardmax {
namespace {

constexpr double kLinePeriodS = 5;

// All of a job that is not a number that changes with every step.
std::string WithoutNumbers(const v1::Job& job) {
  return fmt::format("{} {} {} {} {} {}", static_cast<int>(job.state()), job.reason(), job.attempt(), job.pool(),
                     job.stop_requested(), job.has_progress());
}

std::string TimeOfDay() {
  google::protobuf::Timestamp now;
  now.set_seconds(std::time(nullptr));
  return LocalTime(now).substr(11);
}

}  // namespace

JobDisplay::~JobDisplay() {
  ClearBar();
}

void JobDisplay::ClearBar() {
  if (bar_drawn_) terminal_.Print("\r\033[K");
  bar_drawn_ = false;
}

void JobDisplay::Note(const std::string& text) {
  ClearBar();
  terminal_.Print(text + "\n");
  std::fflush(terminal_.stream());
}

void JobDisplay::Show(const v1::Job& job, double now_s) {
  eta_.Observe(job, now_s);
  if (terminal_.is_terminal()) {
    DrawBar(job, now_s);
  } else {
    PrintLine(job, now_s);
  }
  std::fflush(terminal_.stream());
}

void JobDisplay::DrawBar(const v1::Job& job, double) {
  // A terminal wraps a line that fills the last column.
  const auto width = static_cast<size_t>(terminal_.width() - 1);
  terminal_.Print("\r\033[K" + terminal_.Paint(JobBar(job, eta_.seconds(), width), ColourOf(job.state())));
  bar_drawn_ = true;
}

void JobDisplay::PrintLine(const v1::Job& job, double now_s) {
  std::string change = WithoutNumbers(job);
  if (change == last_change_ && next_s_ && now_s < *next_s_) return;
  last_change_ = std::move(change);
  next_s_ = now_s + kLinePeriodS;
  terminal_.Print(TimeOfDay() + " " + JobLine(job, eta_.seconds()) + "\n");
}

}  // namespace shardmax
