// Files by system calls, with every failure as a status that names the path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shardmax {

// Whether a path whose last part is a symbolic link is opened or refused.
enum class Links { kFollow, kRefuse };

// An open file descriptor. Movable; closed on destruction. Not thread-safe for writing; any thread reads.
class File {
 public:
  // Opens a regular file; a folder, device or pipe is InvalidArgument.
  static absl::StatusOr<File> OpenForReading(const std::string& path, Links links = Links::kFollow);

  // Creates `path`, or empties the file that is there, for Append.
  static absl::StatusOr<File> Create(const std::string& path);

  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File();

  const std::string& path() const { return path_; }
  int descriptor() const { return descriptor_; }
  int64_t size() const { return size_; }  // Bytes, when it was opened for reading.

  // Fills `out` from byte `offset` on. InvalidArgument if the file ends before.
  absl::Status ReadAt(int64_t offset, std::span<std::byte> out) const;

  // Hints for the page cache; no errors. WillNeed: the disk begins to read, the caller need not wait. WillNotNeed: what
  // was read makes room.
  void WillNeed(int64_t offset, int64_t bytes) const;
  void WillNotNeed(int64_t offset, int64_t bytes) const;

  // Writes all of `bytes` at the end.
  absl::Status Append(std::span<const std::byte> bytes);

  // Waits until everything is on the disk, and closes. Not closing this way loses write errors that come late.
  absl::Status SyncAndClose();

 private:
  File(std::string path, int descriptor, int64_t size);
  void Close();

  std::string path_;
  int descriptor_ = -1;
  int64_t size_ = 0;
};

// Waits until the names in `folder` (created, renamed, removed) are on the disk.
absl::Status SyncFolder(const std::string& folder);

}  // namespace shardmax
