#include "worker/data/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "worker/base/status.h"

namespace shardmax {

File::File(std::string path, int descriptor, int64_t size)
    : path_(std::move(path)), descriptor_(descriptor), size_(size) {}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_) {}

File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    Close();
    path_ = std::move(other.path_);
    descriptor_ = std::exchange(other.descriptor_, -1);
    size_ = other.size_;
  }
  return *this;
}

File::~File() {
  Close();
}

void File::Close() {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

absl::StatusOr<File> File::OpenForReading(const std::string& path, Links links) {
  // O_NONBLOCK: a pipe without a writer must be refused below, not waited for.
  const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | (links == Links::kRefuse ? O_NOFOLLOW : 0);
  File file(path, ::open(path.c_str(), flags), 0);
  if (file.descriptor_ < 0) {
    if (errno == ELOOP && links == Links::kRefuse) {
      return InvalidArgument("{}: is a symbolic link, a regular file is needed", path);
    }
    return ErrnoError(errno, path);
  }
  struct stat info {};
  if (::fstat(file.descriptor_, &info) != 0) return ErrnoError(errno, path);
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument("{}: is {}, a regular file is needed", path,
                           S_ISDIR(info.st_mode) ? "a folder" : "not a regular file");
  }
  file.size_ = info.st_size;
  return file;
}

absl::StatusOr<File> File::Create(const std::string& path) {
  File file(path, ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), 0);
  if (file.descriptor_ < 0) return ErrnoError(errno, path);
  return file;
}

absl::Status File::ReadAt(int64_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const auto position = offset + static_cast<int64_t>(done);
    const ssize_t got = ::pread(descriptor_, out.data() + done, out.size() - done, position);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoError(errno, path_);
    if (got == 0) {
      return InvalidArgument("{}: truncated: ends at byte {}, the bytes up to {} are needed", path_, position,
                             offset + static_cast<int64_t>(out.size()));
    }
    done += static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

void File::WillNeed(int64_t offset, int64_t bytes) const {
  ::posix_fadvise(descriptor_, offset, bytes, POSIX_FADV_WILLNEED);
}

void File::WillNotNeed(int64_t offset, int64_t bytes) const {
  ::posix_fadvise(descriptor_, offset, bytes, POSIX_FADV_DONTNEED);
}

absl::Status File::Append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoError(errno, path_);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status File::SyncAndClose() {
  if (::fsync(descriptor_) != 0) return ErrnoError(errno, path_);
  if (::close(std::exchange(descriptor_, -1)) != 0) return ErrnoError(errno, path_);
  return absl::OkStatus();
}

absl::Status SyncFolder(const std::string& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return ErrnoError(errno, folder);
  const int error = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  // Some network file systems cannot sync a folder, and say EINVAL; they order names by themselves.
  return error == 0 || error == EINVAL ? absl::OkStatus() : ErrnoError(error, folder);
}

}  // namespace shardmax
