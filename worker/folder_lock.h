// One process at a time in a folder.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace shardmax {

// Holds a folder by an flock(2) on its file `.lock`, which says who holds it and goes with the lock. However the
// process ends, the system lets go. Movable; any thread.
//
// On NFS the lock counts between machines only where the server keeps locks: NFSv4, or NFSv3 with lockd. A mount with
// `nolock` or `local_lock=flock` has locks of each machine alone, and a machine that is gone holds its own until the
// server's lease ends.
class FolderLock {
 public:
  // Takes the lock of `folder`, which exists, waiting at most `wait_ms` for another holder. `owner_text` says in the
  // messages of others what this process is, after its pid and host. FailedPrecondition names the holder;
  // Unimplemented: this file system has no locks; or the system's error.
  static absl::StatusOr<FolderLock> Take(const std::string& folder, int wait_ms, const std::string& owner_text);

  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&& other) noexcept;
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  ~FolderLock();

 private:
  FolderLock(std::string path, int file) : path_(std::move(path)), file_(file) {}

  std::string path_;
  int file_;
};

}  // namespace shardmax
