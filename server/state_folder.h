// STATE_DIR: the lock, the jobs' folders, and what others read: server.json and the targets of Prometheus.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardmax/v1/control.pb.h"

namespace shardmax {

// Any thread calls.
class StateFolder {
 public:
  // Makes the folder (for its user and group) and takes it for this process: FailedPrecondition if another server has
  // it. Removes what an interrupted delete has left.
  static absl::StatusOr<std::unique_ptr<StateFolder>> Take(const std::string& path);
  ~StateFolder();
  StateFolder(const StateFolder&) = delete;
  StateFolder& operator=(const StateFolder&) = delete;

  const std::string& path() const { return path_; }  // Canonical.
  std::string database() const { return path_ + "/shardmax.db"; }
  std::string jobs() const { return path_ + "/jobs"; }

  // server.json: {"listen": …, "metrics": …, "pid": …}.
  absl::Status WriteServerJson(const std::string& listen, const std::string& metrics) const;

  // prometheus/targets.json: the server at `metrics` and every rank, for Prometheus' file_sd.
  absl::Status WriteTargets(const std::string& metrics, const std::vector<shardmax::v1::Pool>& pools) const;

 private:
  StateFolder(std::string path, int lock) : path_(std::move(path)), lock_(lock) {}

  std::string path_;
  int lock_;
};

// Renames a job's folder out of the way, and returns its new path; empty if there is none or it cannot be renamed.
std::string SetJobFolderAside(const std::string& folder);

// With all that is in it; links are removed, not followed. What cannot be removed stays until the next start.
void RemoveFolder(const std::string& path);

}  // namespace shardmax
