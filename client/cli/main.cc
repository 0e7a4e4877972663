// shardmax: the command for people and scripts.

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "client/cli/completion.h"
#include "client/cli/options.h"
#include "client/cli/session.h"
#include "client/cli/verbs.h"

namespace shardmax {
namespace {

int RunVerb(const Session& session) {
  switch (session.options.verb) {
    case Verb::kSubmit:
      return RunSubmit(session);
    case Verb::kStatus:
      return RunStatus(session);
    case Verb::kList:
      return RunList(session);
    case Verb::kLogs:
      return RunLogs(session);
    case Verb::kWatch:
      return RunWatch(session);
    case Verb::kStop:
      return RunStop(session);
    case Verb::kDelete:
      return RunDelete(session);
    case Verb::kCheckpoints:
      return RunCheckpoints(session);
    case Verb::kExport:
      return RunExport(session);
    case Verb::kPools:
      return RunPools(session);
    case Verb::kPlot:
      return RunPlot(session);
    default:
      return kExitInvalidUse;
  }
}

// A result that did not reach its file must not look like success.
int Flushed(int exit_code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return exit_code;
  std::perror("shardmax: stdout");
  return exit_code == kExitSucceeded ? kExitFailed : exit_code;
}

int Main(int argc, char** argv) {
  // gRPC writes what it thinks of failed connections to stderr; the command says it better.
  setenv("GRPC_VERBOSITY", "NONE", 0);
  const ParsedCommand parsed = ParseCommandLine(argc, argv);
  if (!parsed.run) {
    std::fputs(parsed.text.c_str(), parsed.exit_code == kExitSucceeded ? stdout : stderr);
    return Flushed(parsed.exit_code);
  }
  if (parsed.options.verb == Verb::kCompletion) {
    CliOptions unused;
    std::fputs(CompletionScript(*MakeApp(unused), parsed.options.shell).c_str(), stdout);
    return Flushed(kExitSucceeded);
  }
  const auto client = MakeClient(parsed.options);
  if (!client.ok()) {
    std::fputs(ErrorText(client.status(), parsed.options).c_str(), stderr);
    return ExitCodeOf(client.status());
  }
  return Flushed(RunVerb({parsed.options, **client, Terminal(stdout), Terminal(stderr)}));
}

}  // namespace
}  // namespace shardmax

int main(int argc, char** argv) {
  try {
    return shardmax::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "shardmax: %s\n", error.what());
    return shardmax::kExitFailed;
  }
}
