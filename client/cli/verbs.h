// What each verb does. All print their result and return the exit code.
#pragma once

#include <string>

#include "client/cli/session.h"

namespace shardmax {

int RunSubmit(const Session& session);
int RunStatus(const Session& session);
int RunList(const Session& session);
int RunLogs(const Session& session);
int RunWatch(const Session& session);
int RunStop(const Session& session);
int RunDelete(const Session& session);
int RunCheckpoints(const Session& session);
int RunExport(const Session& session);
int RunPools(const Session& session);
int RunPlot(const Session& session);

// Shows the progress of job `id` on `terminal` (with --json: lines on stdout) until it ends.
int FollowJob(const Session& session, const std::string& id, const Terminal& terminal);

// Streams go on over a restart of the server, and say so on stderr.
StreamOptions StreamOptionsOf(const Session& session, std::stop_token stop);

}  // namespace shardmax
