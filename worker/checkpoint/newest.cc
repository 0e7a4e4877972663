#include <sstream>
#include <utility>

#include "absl/strings/str_join.h"
#include "worker/base/status.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/checkpoint/folders.h"

namespace shardmax {
namespace {

// The names of the folders to try, newest first, as rank 0 sees them, one a line.
absl::StatusOr<std::string> ListCandidates(const std::string& checkpoints_dir) {
  // A folder that cannot be changed can still be read.
  RestoreSetAside(checkpoints_dir).IgnoreError();
  SHARDMAX_ASSIGN_OR_RETURN(const std::vector<int32_t> steps, ListSteps(checkpoints_dir));
  std::vector<std::string> names;
  for (int32_t step : steps) names.push_back(StepFolderName(step));
  return absl::StrJoin(names, "\n");
}

// This rank's share of the verification.
absl::Status VerifyShare(const Communicator& comm, const std::string& folder) {
  SHARDMAX_ASSIGN_OR_RETURN(const CheckpointReader reader, CheckpointReader::Open(folder));
  for (int index = comm.rank(); index < reader.manifest().files_size(); index += comm.size()) {
    SHARDMAX_RETURN_IF_ERROR(reader.VerifyFile(index));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status VerifyCheckpoint(Communicator& comm, const std::string& folder) {
  return AgreeOk(comm, VerifyShare(comm, folder));
}

absl::StatusOr<std::string> NewestName(const std::string& checkpoints_dir) {
  SHARDMAX_ASSIGN_OR_RETURN(const std::string names, ListCandidates(checkpoints_dir));
  return names.substr(0, names.find('\n'));
}

absl::StatusOr<NewestCheckpoint> FindNewestValid(Communicator& comm, const std::string& checkpoints_dir) {
  return FindNewest(comm, checkpoints_dir, [&](const std::string& folder) { return VerifyCheckpoint(comm, folder); });
}

absl::StatusOr<NewestCheckpoint> FindNewest(Communicator& comm, const std::string& checkpoints_dir,
                                            const IsValidCheckpoint& is_valid) {
  absl::StatusOr<std::string> names = std::string();
  if (comm.rank() == 0) names = ListCandidates(checkpoints_dir);
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm, names.status()));
  SHARDMAX_ASSIGN_OR_RETURN(const std::string all_names, BroadcastString(comm, *names, 0));

  NewestCheckpoint newest;
  std::istringstream lines(all_names);
  for (std::string name; std::getline(lines, name);) {
    const std::string folder = checkpoints_dir + "/" + name;
    const absl::Status status = is_valid(folder);
    if (status.ok()) {
      newest.folder = folder;
      break;
    }
    // Tells a rank's verdict on the folder from a lost rank: a broken communicator fails again.
    SHARDMAX_RETURN_IF_ERROR(comm.Barrier());
    newest.rejected.push_back(fmt::format("{} is not valid: {}", folder, Message(status)));
  }
  return newest;
}

}  // namespace shardmax
