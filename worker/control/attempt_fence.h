// Keeps an attempt at a job that a newer attempt has replaced from writing into the job's folder.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace shardmax {

// FOLDER/attempt holds the number of the newest attempt that has come to the folder. An attempt announces itself there,
// and looks again before it writes: a pool that is cut off from its server learns this way that its job runs elsewhere.
// The file says who is to have the folder, not who is in it: for that there is FolderLock.
//
// Rank 0 has one. Not thread-safe.
class AttemptFence {
 public:
  AttemptFence(std::string folder, int32_t attempt) : folder_(std::move(folder)), attempt_(attempt) {}

  // Makes the folder and writes the number. Aborted: a newer attempt has been there; or the system's error.
  absl::Status Announce() const;

  // OK, or Aborted: a newer attempt has come, or the job was deleted with its folder. A file that cannot be read now
  // says nothing.
  absl::Status Check() const;

 private:
  std::string path() const { return folder_ + "/attempt"; }

  std::string folder_;
  int32_t attempt_;
};

}  // namespace shardmax
