// A file that is there completely or not at all.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace shardmax {

// Written beside its final path under a temporary name, which is removed on destruction unless Publish() succeeded.
// Errors name the path. Not thread-safe.
class NewFile {
 public:
  static absl::StatusOr<NewFile> Create(const std::string& path);
  NewFile(NewFile&& other) noexcept;
  NewFile& operator=(NewFile&&) = delete;
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile();

  absl::Status Append(std::string_view bytes);
  // Empties the file, to begin again.
  absl::Status Restart();
  // Waits until all of it is on the disk, and renames it to the path; what was there before is replaced.
  absl::Status Publish();

 private:
  NewFile(std::string path, std::string temporary, int descriptor);

  std::string path_;
  std::string temporary_;
  int descriptor_;
};

}  // namespace shardmax
