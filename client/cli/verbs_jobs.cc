// submit, status, list, stop, delete.
#include <fmt/format.h>

#include "client/cli/job_text.h"
#include "client/cli/json.h"
#include "client/cli/table.h"
#include "client/cli/text.h"
#include "client/cli/verbs.h"

namespace shardmax {
namespace {

Cell TimeCell(const google::protobuf::Timestamp& time, bool present) {
  if (!present) return {};
  return {fmt::format("{} ({})", LocalTime(time), Ago(time, true, NowSeconds()))};
}

std::string PoolText(const v1::Job& job) {
  return job.pool().empty() ? "" : fmt::format("{} ({} ranks)", Harmless(job.pool()), job.ranks());
}

std::string DescribeJob(const Terminal& terminal, const v1::Job& job) {
  const v1::StepMetrics& metrics = job.progress();
  std::string numbers = MetricsText(job, {});
  if (job.has_progress())
    numbers += fmt::format("  label cosine {:.3f}  lr {:.4g}", metrics.label_cosine(), metrics.lr());
  std::string attempts = job.attempt() > 0 ? std::to_string(job.attempt()) : "";
  if (job.restarts() > 0) {
    attempts += fmt::format(", {} of {} restarts used", job.restarts(), job.spec().max_restarts());
  }
  return RenderFields(
      terminal,
      {{"job", {Harmless(job.id()), Colour::kBold}},
       {"state", {StateName(job.state()) + (job.stop_requested() ? " (stop requested)" : ""), ColourOf(job.state())}},
       {"reason", {Harmless(job.reason())}},
       {"progress", {StepText(job)}},
       {"", {numbers}},
       {"pool", {PoolText(job)}},
       {"attempt", {attempts}},
       {"owner", {Harmless(job.owner())}},
       {"submitted", TimeCell(job.submitted(), job.has_submitted())},
       {"started", TimeCell(job.started(), job.has_started())},
       {"finished", TimeCell(job.finished(), job.has_finished())},
       {"checkpoint", {job.checkpoint_step() > 0 ? "step " + Grouped(job.checkpoint_step()) : ""}},
       {"folder", {Harmless(job.folder())}}});
}

std::string ProgressCell(const v1::Job& job) {
  const std::string text = StepText(job);
  return text.starts_with("step ") ? text.substr(5) : text;
}

std::string JobTable(const Terminal& terminal, const std::vector<v1::Job>& jobs) {
  Table table(
      {{"JOB"}, {"STATE"}, {"PROGRESS"}, {"LOSS", Align::kRight}, {"POOL"}, {"SUBMITTED"}, {"OWNER"}, {"REASON"}});
  const double now_s = NowSeconds();
  for (const v1::Job& job : jobs) {
    table.AddRow({{Harmless(job.id())},
                  {StateName(job.state()), ColourOf(job.state())},
                  {ProgressCell(job)},
                  {job.has_progress() ? fmt::format("{:.4f}", job.progress().loss()) : ""},
                  {Harmless(job.pool())},
                  {Ago(job.submitted(), job.has_submitted(), now_s)},
                  {Harmless(job.owner())},
                  {Harmless(job.reason())}});
  }
  return table.Render(terminal, terminal.width());
}

v1::ListJobsRequest FilterOf(const CliOptions& options) {
  v1::ListJobsRequest request;
  for (const v1::JobState state : options.states) request.add_states(state);
  request.set_name(options.name);
  request.set_pool(options.pool);
  return request;
}

bool IsFiltered(const CliOptions& options) {
  return !options.states.empty() || !options.name.empty() || !options.pool.empty();
}

}  // namespace

int RunSubmit(const Session& session) {
  const auto spec = LoadJobSpec(session.options.file);
  if (!spec.ok()) return Fail(session, spec.status());
  const auto job = session.client.Submit(*spec, session.options.idempotency_key);
  if (!job.ok()) return Fail(session, job.status());
  const std::string id = Harmless(job->id());
  if (session.options.json) {
    if (!session.options.wait) session.out.Print(JsonLine(*job));
  } else {
    session.out.Print(id + "\n");
  }
  std::fflush(stdout);
  if (session.options.wait) return FollowJob(session, job->id(), session.err);
  if (!session.options.json) session.err.Print(fmt::format("submitted; follow it with: shardmax watch {}\n", id));
  return kExitSucceeded;
}

int RunStatus(const Session& session) {
  const auto job = session.client.Get(session.options.job);
  if (!job.ok()) return Fail(session, job.status());
  session.out.Print(session.options.json ? JsonLine(*job) : DescribeJob(session.out, *job));
  return kExitSucceeded;
}

int RunList(const Session& session) {
  const auto jobs = session.client.ListAll(FilterOf(session.options), session.options.limit);
  if (!jobs.ok()) return Fail(session, jobs.status());
  if (session.options.json) {
    v1::ListJobsResponse all;
    for (const v1::Job& job : *jobs) *all.add_jobs() = job;
    session.out.Print(JsonLine(all));
  } else if (session.options.ids) {
    for (const v1::Job& job : *jobs) session.out.Print(Harmless(job.id()) + "\n");
  } else if (jobs->empty()) {
    session.err.Print(IsFiltered(session.options) ? "no such jobs\n"
                                                  : "no jobs yet; submit one with: shardmax submit FILE\n");
  } else {
    session.out.Print(JobTable(session.out, *jobs));
  }
  return kExitSucceeded;
}

int RunStop(const Session& session) {
  const auto job = session.client.Stop(session.options.job);
  if (!job.ok()) return Fail(session, job.status());
  if (session.options.wait) return FollowJob(session, job->id(), session.out);
  if (session.options.json) {
    session.out.Print(JsonLine(*job));
  } else {
    const std::string id = Harmless(job->id());
    session.out.Print(IsFinal(job->state())
                          ? fmt::format("{} {}\n", id, StateName(job->state()))
                          : fmt::format("{} ends its step and writes a checkpoint; see: shardmax watch {}\n", id, id));
  }
  return kExitSucceeded;
}

int RunDelete(const Session& session) {
  // By id: a name could mean another job a moment later.
  const auto job = session.client.Get(session.options.job);
  if (!job.ok()) return Fail(session, job.status());
  if (const absl::Status status = session.client.Delete(job->id()); !status.ok()) return Fail(session, status);
  if (session.options.json) {
    v1::DeleteJobRequest deleted;
    deleted.set_job(job->id());
    session.out.Print(JsonLine(deleted));
  } else {
    session.out.Print(Harmless(job->id()) + " is deleted, and its folder with it\n");
  }
  return kExitSucceeded;
}

}  // namespace shardmax
