// The names in a folder of checkpoints, and what an interrupted write leaves there.
//
//   step-00001000        a complete checkpoint
//   .tmp-step-00001000   one being written, or half of one: rubbish when nobody writes
//   .gone-step-00001000  one being removed: rubbish
//   .old-step-00001000   the one that a new write of the same step has set aside: rubbish once step-00001000 exists,
//                        else (interrupted between two renames) the checkpoint itself
//
// Only one process (rank 0 of one job) changes a folder of checkpoints at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shardmax {

std::string StepFolderName(int32_t step);       // "step-00001000"; more digits from step 100 000 000 on.
std::string TemporaryFolderName(int32_t step);  // ".tmp-step-00001000"

// The step of a name that StepFolderName gives; none for any other name.
std::optional<int32_t> StepOfFolderName(const std::string& name);

// The steps of the folders of checkpoints under `checkpoints_dir`, newest first. None if it does not exist.
absl::StatusOr<std::vector<int32_t>> ListSteps(const std::string& checkpoints_dir);

// Gives checkpoints that were set aside their name back where an interrupted write left none of that name.
absl::Status RestoreSetAside(const std::string& checkpoints_dir);

// Renames `from` to the folder of `step`, replacing one that is there, and syncs `checkpoints_dir`. On error the one
// that was there is there again.
absl::Status PublishFolder(const std::string& checkpoints_dir, const std::string& from, int32_t step);

// Removes the folders of the oldest steps up to `newest` beyond `keep`, and rubbish. What cannot be removed stays,
// and is tried again by the next call.
void RemoveOldest(const std::string& checkpoints_dir, int32_t newest, int keep);

}  // namespace shardmax
