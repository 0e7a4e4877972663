// watch, logs, and waiting for a job.
#include <fmt/format.h>

#include <chrono>

#include "client/cli/interrupts.h"
#include "client/cli/job_display.h"
#include "client/cli/job_text.h"
#include "client/cli/json.h"
#include "client/cli/text.h"
#include "client/cli/verbs.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

double MonotonicSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string BreakText(const absl::Status& why, int reconnect_s) {
  return fmt::format("{}\n  the job goes on without it; trying to reach it again for {}",
                     HarmlessLines(Message(why), 2), ShortDuration(reconnect_s));
}

// What happens to a job whose watcher leaves, and how to come back.
std::string LeavingText(const std::string& id) {
  return fmt::format("{0} goes on. Follow it again with: shardmax watch {0}\n  stop it with: shardmax stop {0}\n",
                     Harmless(id));
}

std::string LogText(const Terminal& terminal, const v1::LogLine& line) {
  Colour colour = Colour::kNone;
  if (line.level() == "warning") colour = Colour::kYellow;
  if (line.level() == "error") colour = Colour::kRed;
  return fmt::format("{}  {}  {}  {}\n", terminal.Paint(LocalTime(line.time()), Colour::kDim),
                     terminal.Paint(fmt::format("{:<7}", Harmless(line.level())), colour),
                     terminal.Paint(Harmless(line.source()), Colour::kCyan), Harmless(line.text()));
}

}  // namespace

StreamOptions StreamOptionsOf(const Session& session, std::stop_token stop) {
  StreamOptions stream;
  stream.stop = std::move(stop);
  stream.reconnect_for = std::chrono::seconds(session.options.reconnect_s);
  stream.on_break = [&session](const absl::Status& why) {
    session.err.Print("shardmax: " + BreakText(why, session.options.reconnect_s) + "\n");
  };
  stream.on_reconnect = [&session] { session.err.Print("shardmax: connected again\n"); };
  return stream;
}

int FollowJob(const Session& session, const std::string& id, const Terminal& terminal) {
  const Interrupts interrupts;
  JobDisplay display(terminal);
  StreamOptions stream = StreamOptionsOf(session, interrupts.token());
  if (!session.options.json) {
    stream.on_break = [&](const absl::Status& why) { display.Note(BreakText(why, session.options.reconnect_s)); };
    stream.on_reconnect = [&] { display.Note("connected again"); };
  }
  v1::Job last;
  const absl::Status status = session.client.Watch(
      id,
      [&](const v1::Job& job) {
        last = job;
        if (session.options.json) {
          session.out.Print(JsonLine(job));
          std::fflush(stdout);
        } else if (!IsFinal(job.state())) {
          display.Show(job, MonotonicSeconds());
        }
        return true;
      },
      stream);
  const std::string& known_id = last.id().empty() ? id : last.id();
  if (!status.ok()) {
    display.Note("");
    if (absl::IsCancelled(status) || absl::IsUnavailable(status)) session.err.Print(LeavingText(known_id));
    return absl::IsCancelled(status) ? kExitInterrupted : Fail(session, status);
  }
  if (!session.options.json) display.Note(terminal.Paint(EndText(last), ColourOf(last.state())));
  return ExitCodeOf(last.state());
}

int RunWatch(const Session& session) {
  return FollowJob(session, session.options.job, session.out);
}

int RunLogs(const Session& session) {
  const Interrupts interrupts;
  const absl::Status status = session.client.StreamLogs(
      session.options.job, session.options.follow,
      [&](const v1::LogLine& line) {
        session.out.Print(session.options.json ? JsonLine(line) : LogText(session.out, line));
        if (session.options.follow) std::fflush(stdout);
        return true;
      },
      0, StreamOptionsOf(session, interrupts.token()));
  if (absl::IsCancelled(status)) return kExitInterrupted;
  return status.ok() ? kExitSucceeded : Fail(session, status);
}

}  // namespace shardmax
