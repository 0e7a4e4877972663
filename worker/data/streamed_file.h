// Large files that are written once, front to back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shardmax {

// A file of a known size that is written at the speed of the disk, without driving other pages out of memory: blocks go
// past the page cache (O_DIRECT) where the file system can do that, on a thread of their own, so that the caller fills
// the next block while one is written. Takes 8 MiB, a file that fits one block half of it and no thread. Movable; one
// thread at a time.
class StreamedFile {
 public:
  // Creates `path`, or empties the file that is there, and reserves the room for `bytes`, so that a full disk shows
  // before anything is written.
  static absl::StatusOr<StreamedFile> Create(const std::string& path, int64_t bytes);

  StreamedFile(StreamedFile&&) noexcept;
  StreamedFile& operator=(StreamedFile&&) noexcept;
  // What was not synced is not to be relied on.
  ~StreamedFile();

  const std::string& path() const;

  // Appends `bytes`, in pieces of any size. An error may be that of an earlier piece; the file is lost after one.
  absl::Status Append(std::span<const std::byte> bytes);

  // Waits until everything is on the disk, and closes.
  absl::Status SyncAndClose();

 private:
  class Blocks;
  explicit StreamedFile(std::unique_ptr<Blocks> blocks);

  std::unique_ptr<Blocks> blocks_;
};

}  // namespace shardmax
