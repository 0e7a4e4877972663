#include "client/cpp/new_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <random>
#include <utility>

#include "worker/base/status.h"

namespace shardmax {

absl::StatusOr<NewFile> NewFile::Create(const std::string& path) {
  if (std::filesystem::is_directory(path)) return InvalidArgument("{}: is a folder: give the name of a file", path);
  std::string temporary = fmt::format("{}.partial-{:08x}", path, std::random_device()());
  const int descriptor = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0) return ErrnoError(errno, temporary);
  return NewFile(path, std::move(temporary), descriptor);
}

NewFile::NewFile(std::string path, std::string temporary, int descriptor)
    : path_(std::move(path)), temporary_(std::move(temporary)), descriptor_(descriptor) {}

NewFile::NewFile(NewFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, "")),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

NewFile::~NewFile() {
  if (descriptor_ >= 0) close(descriptor_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::Status NewFile::Append(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoError(errno, temporary_);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status NewFile::Restart() {
  if (ftruncate(descriptor_, 0) != 0 || lseek(descriptor_, 0, SEEK_SET) != 0) return ErrnoError(errno, temporary_);
  return absl::OkStatus();
}

absl::Status NewFile::Publish() {
  if (fsync(descriptor_) != 0) return ErrnoError(errno, temporary_);
  if (close(std::exchange(descriptor_, -1)) != 0) return ErrnoError(errno, temporary_);
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) return ErrnoError(errno, path_);
  temporary_.clear();
  return absl::OkStatus();
}

}  // namespace shardmax
