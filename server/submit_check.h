// What a server accepts as a job: the checks of worker/spec, and every path inside the data roots.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/job_state.h"
#include "shardmax/v1/control.pb.h"
#include "worker/data/data_root.h"

namespace shardmax {

// Immutable; any thread calls. Reads the file system.
class SubmitCheck {
 public:
  // `data_roots` has at least one folder. `jobs_folder` is a root for init.weights only: a job may start from the
  // checkpoint of another.
  static absl::StatusOr<SubmitCheck> Make(const std::vector<std::string>& data_roots, const std::string& jobs_folder);

  // The spec with every default, and with paths that are absolute and free of links. InvalidArgument with all mistakes,
  // one a line.
  absl::StatusOr<shardmax::v1::JobSpec> Resolve(const shardmax::v1::JobSpec& spec) const;

  // Canonical: those that pools are told, the jobs folder last.
  const std::vector<std::string>& pool_roots() const { return pool_roots_; }

 private:
  SubmitCheck(DataRoots data, DataRoots weights, std::vector<std::string> pool_roots)
      : data_(std::move(data)), weights_(std::move(weights)), pool_roots_(std::move(pool_roots)) {}
  void ResolveTrain(shardmax::v1::Train& train, std::vector<std::string>& mistakes) const;
  void ResolveEvaluate(shardmax::v1::Evaluate& evaluate, std::vector<std::string>& mistakes) const;

  DataRoots data_;
  DataRoots weights_;
  std::vector<std::string> pool_roots_;
};

// The parts of a record that come from a request alone. InvalidArgument: a bad idempotency_key; ResourceExhausted: a
// spec of more than `max_spec_bytes`.
absl::StatusOr<JobRecord> ToRecord(const shardmax::v1::SubmitJobRequest& request, const std::string& owner,
                                   size_t max_spec_bytes);

}  // namespace shardmax
