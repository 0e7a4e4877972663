#include "client/cli/plot/job_picture.h"

#include <fmt/format.h>

#include <functional>

#include "client/cli/job_text.h"
#include "client/cli/text.h"

namespace shardmax {
namespace {

constexpr Rgb kBlue = {0.12, 0.44, 0.71};
constexpr Rgb kGreen = {0.16, 0.56, 0.31};
constexpr Rgb kRed = {0.76, 0.23, 0.23};
constexpr Rgb kOrange = {0.85, 0.46, 0.06};
constexpr Rgb kPurple = {0.45, 0.33, 0.66};

std::vector<v1::StepMetrics> LatestOfEachStep(const std::vector<v1::StepMetrics>& metrics) {
  std::vector<v1::StepMetrics> latest;
  for (const v1::StepMetrics& line : metrics) {
    while (!latest.empty() && latest.back().step() >= line.step()) latest.pop_back();
    latest.push_back(line);
  }
  return latest;
}

Curve CurveOf(const std::vector<v1::StepMetrics>& metrics, const std::function<double(const v1::StepMetrics&)>& value) {
  Curve curve;
  for (const v1::StepMetrics& line : metrics) curve.push_back({static_cast<double>(line.step()), value(line)});
  return curve;
}

Panel Top1(const std::vector<v1::StepMetrics>& metrics) {
  Panel panel;
  panel.title = "held-out top-1";
  panel.scale = Panel::Scale::kPercent;
  panel.colour = kGreen;
  panel.markers = true;
  panel.empty_note = "no validation yet";
  for (const v1::StepMetrics& line : metrics) {
    if (!line.has_validation_top1()) continue;
    panel.curve.push_back({static_cast<double>(line.step()), line.validation_top1()});
    panel.last_label = fmt::format("{:.2f}%", 100 * line.validation_top1());
  }
  return panel;
}

// "glyphs-1: SV_AM_SOFTMAX, 8,000 classes, D = 128".
std::string TitleOf(const v1::Job& job) {
  std::string title = Harmless(job.id());
  if (!job.spec().has_train()) return title;
  const v1::Train& train = job.spec().train();
  return title + fmt::format(": {}, {} classes, D = {}", v1::Preset_Name(train.loss().preset()),
                             Grouped(train.num_classes()), train.dim());
}

std::string SubtitleOf(const v1::Job& job, const std::vector<v1::StepMetrics>& metrics) {
  std::string text = StateName(job.state());
  if (job.total_steps() > 0) {
    text += fmt::format(", step {} of {}", Grouped(metrics.empty() ? 0 : metrics.back().step()),
                        Grouped(job.total_steps()));
  }
  if (!metrics.empty()) text += fmt::format(", loss {:.4f}", metrics.back().loss());
  if (job.restarts() > 0) text += fmt::format(", restarts {}", job.restarts());
  return text;
}

}  // namespace

Picture JobPicture(const v1::Job& job, const std::vector<v1::StepMetrics>& lines) {
  const std::vector<v1::StepMetrics> metrics = LatestOfEachStep(lines);
  const auto curve = [&](const auto& value) { return CurveOf(metrics, value); };
  const std::string none = "no steps yet";
  Picture picture;
  picture.title = TitleOf(job);
  picture.subtitle = SubtitleOf(job, metrics);
  picture.last_x = metrics.empty() ? 0 : metrics.back().step();
  picture.top = {.title = "loss (nats)",
                 .colour = kBlue,
                 .curve = curve([](const v1::StepMetrics& line) { return line.loss(); }),
                 .smooth = true,
                 .empty_note = none};
  picture.below = {Top1(metrics),
                   {.title = "label cosine",
                    .colour = kRed,
                    .curve = curve([](const v1::StepMetrics& line) { return line.label_cosine(); }),
                    .smooth = true,
                    .empty_note = none},
                   {.title = "support-vector ratio",
                    .scale = Panel::Scale::kLog,
                    .colour = kOrange,
                    .curve = curve([](const v1::StepMetrics& line) { return line.support_vector_ratio(); }),
                    .smooth = true,
                    .empty_note = "no support vectors"},
                   {.title = "learning rate",
                    .colour = kPurple,
                    .curve = curve([](const v1::StepMetrics& line) { return line.lr(); }),
                    .empty_note = none}};
  return picture;
}

}  // namespace shardmax
