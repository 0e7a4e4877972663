// How the server is told that a job has ended.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "shardmax/v1/control.pb.h"

namespace shardmax {

// What rank 0 knows at the end of a job.
struct JobEnding {
  absl::Status status;          // Of the run. OK: it finished, or was stopped.
  bool stopped = false;         // Before its last step, with a checkpoint.
  bool stop_requested = false;  // By the server.
  bool taken_away = false;      // Abandoned, or a newer attempt has the folder.
  bool broken = false;          // The communicator is.
};

struct Outcome {
  shardmax::v1::JobEnded::Outcome outcome;
  std::string reason;
  bool leaving = false;  // The pool ends after this job.
};

// A broken communicator is the pool's failure whatever the message; else the code of the error tells whether another
// attempt would end alike (a wrong file, a loss that diverged) or may succeed (memory, disk, a late rank).
Outcome OutcomeOf(const JobEnding& ending);

}  // namespace shardmax
