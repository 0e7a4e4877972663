// What a job is run with, wherever it comes from: a file, or a server.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "shardmax/v1/job.pb.h"
#include "worker/device_backend.h"
#include "worker/job_events.h"
#include "worker/live/desk.h"
#include "worker/options.h"

namespace spdlog::sinks {
class sink;
}  // namespace spdlog::sinks

namespace shardmax {

// One job, alike on every rank.
struct JobRun {
  shardmax::v1::JobSpec spec;           // Resolved (worker/spec).
  std::string id;                       // On the server; empty: the name of the spec.
  int32_t attempt = 0;                  // As the server counts; 0 without one.
  std::string output_folder;            // The job's folder, made if absent.
  bool resume = false;                  // Go on with what is there.
  std::vector<std::string> data_roots;  // Folders that files must lie in; empty: any file.
  bool folder_is_locked = false;        // The caller holds the lock of the folder (folder_lock.h).
  std::string base_folder;              // Without data roots, relative paths are looked for here first.
};

// What a rank brings to every job that it runs. Borrows; all outlive the job.
struct JobHost {
  BackendChoice backend = BackendChoice::kAuto;  // Equal on every rank.
  const DeviceBackend* device = nullptr;         // Null: this build knows none.
  std::vector<int> processors;                   // Of this rank, ids (MpiSession::processors).
  int threads = 0;                               // 0: one for each of `processors`.
  bool pin_threads = true;                       // Bind them, if they are as many as `processors`.
  JobRequests& requests;
  std::vector<JobObserver*> observers;
  LiveDesk* live = nullptr;  // Where trainers of live jobs come to; null, on every rank: this rank serves none.
  std::chrono::milliseconds last_answer_wait{60'000};  // As of LiveLoopOptions; head.proto says it.
  // Take the lines of the log beside log.txt. Used on rank 0.
  std::vector<std::shared_ptr<spdlog::sinks::sink>> log_sinks;
};

}  // namespace shardmax
