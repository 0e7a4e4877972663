// plot.
#include <fmt/format.h>

#include "client/cli/interrupts.h"
#include "client/cli/json.h"
#include "client/cli/plot/job_picture.h"
#include "client/cli/plot/picture.h"
#include "client/cli/text.h"
#include "client/cli/verbs.h"
#include "client/cpp/new_file.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

// Returns the number of lines of metrics that are in the picture.
absl::StatusOr<size_t> Plot(const Session& session, const v1::Job& job) {
  const Interrupts interrupts;
  std::vector<v1::StepMetrics> metrics;
  SHARDMAX_RETURN_IF_ERROR(session.client.StreamMetrics(
      job.id(), false,
      [&](const v1::StepMetrics& line) {
        metrics.push_back(line);
        return true;
      },
      0, StreamOptionsOf(session, interrupts.token())));
  SHARDMAX_ASSIGN_OR_RETURN(const std::string png, DrawPng(JobPicture(job, metrics)));
  SHARDMAX_ASSIGN_OR_RETURN(NewFile file, NewFile::Create(session.options.output));
  SHARDMAX_RETURN_IF_ERROR(file.Append(png));
  SHARDMAX_RETURN_IF_ERROR(file.Publish());
  return metrics.size();
}

}  // namespace

int RunPlot(const Session& session) {
  const auto job = session.client.Get(session.options.job);
  if (!job.ok()) return Fail(session, job.status());
  const auto lines = Plot(session, *job);
  if (!lines.ok()) return Fail(session, lines.status());
  if (session.options.json) {
    session.out.Print(JsonLine(*job));
  } else {
    session.out.Print(fmt::format("{}: {} steps of {}\n", session.options.output, *lines, Harmless(job->id())));
  }
  return kExitSucceeded;
}

}  // namespace shardmax
