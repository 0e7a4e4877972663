#include "server/checkpoint_folder.h"

#include <sys/stat.h>

#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "server/moment.h"
#include "worker/base/status.h"
#include "worker/checkpoint/folders.h"
#include "worker/checkpoint/manifest.h"

namespace shardmax {
namespace {

std::string CheckpointsOf(const v1::Job& job) {
  return job.folder() + "/checkpoints";
}

std::string FolderOf(const v1::Job& job, int32_t step) {
  return CheckpointsOf(job) + "/" + StepFolderName(step);
}

// Damage is what the folder of a checkpoint that was not asked for by step is passed over for; an interrupted answer
// (a file that was removed meanwhile) looks the same.
absl::StatusOr<v1::CheckpointInfo> Describe(const v1::Job& job, const CheckpointReader& reader) {
  v1::CheckpointInfo info;
  info.set_job(job.id());
  info.set_step(reader.manifest().step());
  info.set_folder(reader.folder());
  *info.mutable_manifest() = reader.manifest();
  int64_t bytes = 0;
  for (const v1::ManifestFile& file : reader.manifest().files()) {
    struct stat about = {};
    const std::string path = reader.folder() + "/" + file.path();
    if (stat(path.c_str(), &about) != 0) return ErrnoError(errno, path);
    bytes += about.st_size;
  }
  struct stat about = {};
  const std::string manifest = reader.folder() + "/" + kManifestName;
  if (stat(manifest.c_str(), &about) != 0) return ErrnoError(errno, manifest);
  info.set_bytes(bytes + about.st_size);
  *info.mutable_written() = ToTimestamp(int64_t{about.st_mtim.tv_sec} * 1'000'000 + about.st_mtim.tv_nsec / 1000);
  return info;
}

absl::Status NoCheckpoint(const v1::Job& job, int32_t step) {
  if (step == 0) return Error(absl::StatusCode::kNotFound, "job {} has no valid checkpoint yet", job.id());
  return Error(absl::StatusCode::kNotFound, "job {} has no checkpoint of step {}", job.id(), step);
}

}  // namespace

absl::StatusOr<v1::ListCheckpointsResponse> ListJobCheckpoints(const v1::Job& job) {
  SHARDMAX_ASSIGN_OR_RETURN(const std::vector<int32_t> steps, ListSteps(CheckpointsOf(job)));
  v1::ListCheckpointsResponse response;
  for (const int32_t step : steps) {
    const auto reader = CheckpointReader::Open(FolderOf(job, step));
    if (!reader.ok()) continue;
    auto info = Describe(job, *reader);
    if (info.ok()) *response.add_checkpoints() = *std::move(info);
  }
  return response;
}

absl::StatusOr<CheckpointReader> OpenJobCheckpoint(const v1::Job& job, int32_t step) {
  if (step < 0) return InvalidArgument("step is {}: give the step of a checkpoint, or 0 for the newest", step);
  SHARDMAX_ASSIGN_OR_RETURN(const std::vector<int32_t> steps, ListSteps(CheckpointsOf(job)));
  for (const int32_t found : steps) {
    if (step != 0 && found != step) continue;
    auto reader = CheckpointReader::Open(FolderOf(job, found));
    if (reader.ok() || step != 0) return reader;
  }
  return NoCheckpoint(job, step);
}

absl::StatusOr<v1::CheckpointInfo> GetJobCheckpoint(const v1::Job& job, int32_t step) {
  SHARDMAX_ASSIGN_OR_RETURN(const CheckpointReader reader, OpenJobCheckpoint(job, step));
  return Describe(job, reader);
}

}  // namespace shardmax
