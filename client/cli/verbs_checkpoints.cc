// checkpoints, export, pools.
#include <fmt/format.h>

#include "client/cli/interrupts.h"
#include "client/cli/job_text.h"
#include "client/cli/json.h"
#include "client/cli/table.h"
#include "client/cli/text.h"
#include "client/cli/verbs.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

// Has a running job write a checkpoint, and waits until the server knows of one that it did not know of before.
absl::Status WriteCheckpointNow(const Session& session) {
  const Interrupts interrupts;
  SHARDMAX_ASSIGN_OR_RETURN(const v1::Job before, session.client.Get(session.options.job));
  SHARDMAX_RETURN_IF_ERROR(session.client.CheckpointNow(before.id()));
  v1::Job last;
  SHARDMAX_RETURN_IF_ERROR(session.client.Watch(
      before.id(),
      [&](const v1::Job& job) {
        last = job;
        return job.checkpoint_step() <= before.checkpoint_step();
      },
      StreamOptionsOf(session, interrupts.token())));
  if (last.checkpoint_step() > before.checkpoint_step()) return absl::OkStatus();
  return Error(absl::StatusCode::kAborted, "{} ended ({}) before it wrote the checkpoint: {}", last.id(),
               StateName(last.state()), last.reason());
}

std::string CheckpointTable(const Terminal& terminal, const std::vector<v1::CheckpointInfo>& checkpoints) {
  Table table({{"STEP", Align::kRight}, {"SIZE", Align::kRight}, {"FILES", Align::kRight}, {"WRITTEN"}, {"FOLDER"}});
  const double now_s = NowSeconds();
  for (const v1::CheckpointInfo& checkpoint : checkpoints) {
    table.AddRow({{Grouped(checkpoint.step())},
                  {ByteCount(checkpoint.bytes())},
                  {std::to_string(checkpoint.manifest().files_size())},
                  {Ago(checkpoint.written(), checkpoint.has_written(), now_s)},
                  {Harmless(checkpoint.folder())}});
  }
  return table.Render(terminal, 0);  // A folder that is cut is of no use.
}

std::string PoolTable(const Terminal& terminal, const std::vector<v1::Pool>& pools) {
  Table table(
      {{"POOL"}, {"STATE"}, {"RANKS", Align::kRight}, {"BACKEND"}, {"JOB"}, {"CONNECTED"}, {"HEARD"}, {"VERSION"}});
  const double now_s = NowSeconds();
  for (const v1::Pool& pool : pools) {
    const Colour colour = pool.state() == v1::LOST   ? Colour::kRed
                          : pool.state() == v1::BUSY ? Colour::kCyan
                                                     : Colour::kGreen;
    table.AddRow({{Harmless(pool.name())},
                  {PoolStateName(pool.state()), colour},
                  {std::to_string(pool.ranks())},
                  {Harmless(pool.backend())},
                  {Harmless(pool.job())},
                  {Ago(pool.connected(), pool.has_connected(), now_s)},
                  {Ago(pool.last_heard(), pool.has_last_heard(), now_s)},
                  {Harmless(pool.version())}});
  }
  return table.Render(terminal, terminal.width());
}

}  // namespace

int RunCheckpoints(const Session& session) {
  if (session.options.now) {
    if (const absl::Status status = WriteCheckpointNow(session); !status.ok()) return Fail(session, status);
  }
  const auto checkpoints = session.client.ListCheckpoints(session.options.job);
  if (!checkpoints.ok()) return Fail(session, checkpoints.status());
  if (session.options.json) {
    v1::ListCheckpointsResponse all;
    for (const v1::CheckpointInfo& checkpoint : *checkpoints) *all.add_checkpoints() = checkpoint;
    session.out.Print(JsonLine(all));
  } else if (checkpoints->empty()) {
    session.err.Print("no checkpoint yet; have a running job write one with --now\n");
  } else {
    session.out.Print(CheckpointTable(session.out, *checkpoints));
  }
  return kExitSucceeded;
}

int RunExport(const Session& session) {
  const Interrupts interrupts;
  const Terminal& err = session.err;
  const auto show = [&](int64_t bytes, int64_t total_bytes) {
    if (!err.is_terminal()) return;
    err.Print(fmt::format("\r\033[K{} of {} ({}%)", ByteCount(bytes), ByteCount(total_bytes),
                          total_bytes > 0 ? 100 * bytes / total_bytes : 0));
    std::fflush(stderr);
  };
  const auto exported =
      session.client.ExportCheckpoint(session.options.job, session.options.step, session.options.output, show,
                                      StreamOptionsOf(session, interrupts.token()), session.options.format);
  if (err.is_terminal()) err.Print("\r\033[K");
  if (!exported.ok()) return Fail(session, exported.status());
  if (session.options.json) {
    v1::ExportChunk result;
    result.set_step(exported->step);
    result.set_total_bytes(exported->bytes);
    session.out.Print(JsonLine(result));
  } else {
    session.out.Print(fmt::format("{}: weights of step {}, {}\n", session.options.output, Grouped(exported->step),
                                  ByteCount(exported->bytes)));
  }
  return kExitSucceeded;
}

int RunPools(const Session& session) {
  const auto pools = session.client.ListPools();
  if (!pools.ok()) return Fail(session, pools.status());
  if (session.options.json) {
    v1::ListPoolsResponse all;
    for (const v1::Pool& pool : *pools) *all.add_pools() = pool;
    session.out.Print(JsonLine(all));
  } else if (pools->empty()) {
    session.err.Print(fmt::format("no pools; start one with: mpirun -n N shardmax-worker --server={} --pool=NAME\n",
                                  session.options.server));
  } else {
    session.out.Print(PoolTable(session.out, *pools));
  }
  return kExitSucceeded;
}

}  // namespace shardmax
