// What the verbs share: the client, where to print, and how an error ends the command.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "client/cli/options.h"
#include "client/cli/terminal.h"
#include "shardmax/client.h"

namespace shardmax {

struct Session {
  const CliOptions& options;
  Client& client;
  Terminal out;  // stdout: what was asked for.
  Terminal err;  // stderr: everything else.
};

// The exit code that stands for an error of a call.
int ExitCodeOf(const absl::Status& status);

// How a job in a final state ends the command.
int ExitCodeOf(v1::JobState state);

// The message of `status` for people, with what to do next; a newline at its end.
std::string ErrorText(const absl::Status& status, const CliOptions& options);

// Prints ErrorText() on stderr, and returns the exit code.
int Fail(const Session& session, const absl::Status& status);

// The client of `options`, which must outlive it; reads the token.
absl::StatusOr<std::unique_ptr<Client>> MakeClient(const CliOptions& options);

}  // namespace shardmax
