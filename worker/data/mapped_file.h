// A whole file as read-only memory.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace shardmax {

// A read-only mapping of a regular file. Movable; unmapped on destruction; any thread reads.
//
// The size is taken when the file is opened. If another program makes the file shorter afterwards, or the disk fails,
// touching a page that is gone ends the process with SIGBUS: replace data files by renaming, never in place. Bytes
// that another program changes show through.
class MappedFile {
 public:
  // How the bytes will be touched: advice for the kernel's read-ahead.
  enum class Access { kNormal, kSequential };

  // An empty file gives empty bytes(). Errors name the path.
  static absl::StatusOr<MappedFile> Open(const std::string& path, Access access = Access::kNormal);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  MappedFile(std::string path, std::span<const std::byte> bytes);
  void Unmap();

  std::string path_;
  std::span<const std::byte> bytes_;
};

}  // namespace shardmax
