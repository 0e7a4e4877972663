#include "worker/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "worker/base/status.h"

namespace shardmax {
namespace {

std::string HostName() {
  std::array<char, 256> name = {};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "an unknown host";
}

// What the holder wrote into the file; it may not have come to that yet.
std::string HolderOf(int file) {
  std::array<char, 1024> text = {};
  const ssize_t bytes = pread(file, text.data(), text.size(), 0);
  return bytes > 0 ? std::string(text.data(), static_cast<size_t>(bytes)) : "another process";
}

// Whether the file is still the one of that name: the holder before may have removed it while this process waited.
bool IsAt(int file, const std::string& path) {
  struct stat opened {};
  struct stat named {};
  return fstat(file, &opened) == 0 && stat(path.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
         opened.st_ino == named.st_ino;
}

absl::Status LockError(int error, const std::string& path) {
  if (error == ENOSYS || error == EOPNOTSUPP || error == ENOLCK) {
    return Error(absl::StatusCode::kUnimplemented, "{}: this file system has no locks", path);
  }
  return ErrnoError(error, path);
}

absl::Status WriteHolder(int file, const std::string& path, const std::string& owner_text) {
  const std::string text = fmt::format("pid {} on {}, {}", getpid(), HostName(), owner_text);
  if (ftruncate(file, 0) != 0 || pwrite(file, text.data(), text.size(), 0) < 0) return ErrnoError(errno, path);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<FolderLock> FolderLock::Take(const std::string& folder, int wait_ms, const std::string& owner_text) {
  constexpr std::chrono::milliseconds kPause(20);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(wait_ms);
  const std::string path = folder + "/.lock";
  while (true) {
    FolderLock lock(path, open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (lock.file_ < 0) return ErrnoError(errno, path);
    if (flock(lock.file_, LOCK_EX | LOCK_NB) == 0) {
      if (!IsAt(lock.file_, path)) {
        close(std::exchange(lock.file_, -1));
        continue;
      }
      SHARDMAX_RETURN_IF_ERROR(WriteHolder(lock.file_, path, owner_text));
      return lock;
    }
    const int error = errno;
    const std::string holder = HolderOf(lock.file_);
    close(std::exchange(lock.file_, -1));
    if (error == EINTR) continue;
    if (error != EWOULDBLOCK) return LockError(error, path);
    if (std::chrono::steady_clock::now() >= deadline) {
      return Error(absl::StatusCode::kFailedPrecondition, "{} is in use by {}", folder, holder);
    }
    std::this_thread::sleep_for(kPause);
  }
}

FolderLock::FolderLock(FolderLock&& other) noexcept
    : path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)) {}

FolderLock& FolderLock::operator=(FolderLock&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  return *this;
}

FolderLock::~FolderLock() {
  if (file_ < 0) return;
  unlink(path_.c_str());  // While it is held: nobody can have it then.
  close(file_);
}

}  // namespace shardmax
