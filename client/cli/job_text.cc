#include "client/cli/job_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "client/cli/text.h"

namespace shardmax {
namespace {

// Rounded down: 100 % means done.
std::string Percent(const WorkDone& work) {
  return fmt::format("{}%",
                     static_cast<int64_t>(100.0 * static_cast<double>(work.done) / static_cast<double>(work.total)));
}

bool SaysProgress(const v1::Job& job) {
  return job.has_progress() || job.has_pairs();
}

std::string Where(const v1::Job& job) {
  if (job.pool().empty()) return "";
  return fmt::format("on pool {} ({} {})", Harmless(job.pool()), job.ranks(), job.ranks() == 1 ? "rank" : "ranks");
}

// The pieces of a line, most important first.
std::vector<std::string> MetricPieces(const v1::Job& job, std::optional<double> eta_s) {
  std::vector<std::string> pieces;
  if (job.has_progress()) pieces.push_back(fmt::format("loss {:.4f}", job.progress().loss()));
  if (eta_s && std::isfinite(*eta_s) && *eta_s < 1e9) pieces.push_back(fmt::format("eta {}", ShortDuration(*eta_s)));
  if (!job.has_progress()) return pieces;
  const v1::StepMetrics& metrics = job.progress();
  if (metrics.samples_per_second() < 1e15) {
    pieces.push_back(Grouped(std::llround(metrics.samples_per_second())) + " samples/s");
  }
  pieces.push_back(fmt::format("sv {:.2g}", metrics.support_vector_ratio()));
  if (metrics.has_validation_top1()) pieces.push_back(fmt::format("top-1 {:.2f}%", 100 * metrics.validation_top1()));
  return pieces;
}

std::string Head(const v1::Job& job) {
  std::string text = Harmless(job.id()) + " " + StateName(job.state());
  if (job.restarts() > 0) text += fmt::format(" (restart {})", job.restarts());
  if (job.stop_requested() && !job.has_finished()) text += ", stopping";
  return text;
}

// What a job without progress waits for.
std::string Waiting(const v1::Job& job) {
  if (!job.reason().empty()) return fmt::format(": {}", Harmless(job.reason()));
  return job.state() == v1::RUNNING ? fmt::format(" {}", Where(job)) : "";
}

size_t BarCells(size_t width) {
  if (width >= 130) return 24;
  return width >= 70 ? 12 : 6;
}

std::string Bar(const WorkDone& work, size_t cells) {
  const double share = static_cast<double>(work.done) / static_cast<double>(work.total);
  const auto full = static_cast<size_t>(share * static_cast<double>(cells));
  return fmt::format("[{}{}]", std::string(full, '#'), std::string(cells - full, '.'));
}

std::string Joined(const std::vector<std::string>& pieces) {
  std::string text;
  for (const std::string& piece : pieces) text += fmt::format("{}{}", text.empty() ? "" : "  ", piece);
  return text;
}

}  // namespace

std::string StateName(v1::JobState state) {
  const std::string& name = v1::JobState_Name(state);
  return name.empty() ? fmt::format("state {}", static_cast<int>(state)) : name;
}

std::string PoolStateName(v1::PoolState state) {
  const std::string& name = v1::PoolState_Name(state);
  return name.empty() ? fmt::format("state {}", static_cast<int>(state)) : name;
}

std::optional<WorkDone> WorkOf(const v1::Job& job) {
  WorkDone work = {job.progress().step(), job.total_steps()};
  if (job.has_pairs()) work = {job.pairs().done(), job.pairs().total()};
  if (!SaysProgress(job) || work.total <= 0) return std::nullopt;
  work.done = std::clamp<int64_t>(work.done, 0, work.total);
  return work;
}

std::string StepText(const v1::Job& job) {
  if (!SaysProgress(job)) return "";
  const auto work = WorkOf(job);
  if (job.has_pairs()) return work ? fmt::format("{} of {} pairs", Percent(*work), Grouped(work->total)) : "";
  const std::string step = Grouped(job.progress().step());
  if (!work) return fmt::format("step {}", step);
  return fmt::format("step {}/{} ({})", step, Grouped(job.total_steps()), Percent(*work));
}

std::string MetricsText(const v1::Job& job, std::optional<double> eta_s) {
  return Joined(MetricPieces(job, eta_s));
}

std::string JobLine(const v1::Job& job, std::optional<double> eta_s) {
  if (job.state() != v1::RUNNING || !SaysProgress(job)) return Head(job) + Waiting(job);
  return Head(job) + "  " + Joined({StepText(job), MetricsText(job, eta_s)});
}

std::string JobBar(const v1::Job& job, std::optional<double> eta_s, size_t width) {
  std::string line;
  const auto work = WorkOf(job);
  if (job.state() != v1::RUNNING || !work) {
    line = JobLine(job, eta_s);
  } else {
    line = Bar(*work, BarCells(width)) + " " + Head(job);
    std::vector<std::string> pieces = MetricPieces(job, eta_s);
    pieces.insert(pieces.begin(), StepText(job));
    for (const std::string& piece : pieces) {
      if (WidthOf(line) + 2 + WidthOf(piece) > width) break;
      line += "  " + piece;
    }
  }
  return Shortened(line, width);
}

std::string EndText(const v1::Job& job) {
  std::string text = Harmless(job.id()) + " " + StateName(job.state());
  if (job.has_finished() && job.has_started()) {
    text += fmt::format(" after {}", ShortDuration(SecondsOf(job.finished()) - SecondsOf(job.started())));
  }
  if (job.restarts() > 0)
    text += fmt::format(" and {} {}", job.restarts(), job.restarts() == 1 ? "restart" : "restarts");
  if (!job.reason().empty()) text += fmt::format(": {}", Harmless(job.reason()));
  if (job.has_progress()) text += fmt::format("\n  {}", Joined({StepText(job), MetricsText(job, {})}));
  if (job.checkpoint_step() > 0) {
    text += fmt::format("\n  newest checkpoint: step {} in {}", Grouped(job.checkpoint_step()), Harmless(job.folder()));
  }
  if (job.state() == v1::FAILED) text += fmt::format("\n  what happened: shardmax logs {}", Harmless(job.id()));
  return text;
}

}  // namespace shardmax
