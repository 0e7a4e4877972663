#include "worker/data/streamed_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "worker/base/aligned_buffer.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr int64_t kBlockBytes = 4 << 20;
// Of offsets, lengths and addresses past the page cache: no disk has larger sectors.
constexpr int64_t kDirectAlignment = 4096;

absl::Status Reserve(int descriptor, int64_t bytes, const std::string& path) {
  // The call itself, not posix_fallocate: where a file system has no such thing, writing zeros first is no gain.
  if (bytes == 0 || ::fallocate(descriptor, 0, 0, bytes) == 0) return absl::OkStatus();
  const bool cannot = errno == EOPNOTSUPP || errno == ENOSYS || errno == ENODEV || errno == EINVAL;
  return cannot ? absl::OkStatus() : ErrnoError(errno, path);
}

void LeaveDirect(int descriptor) {
  const int flags = ::fcntl(descriptor, F_GETFL);
  if (flags >= 0) ::fcntl(descriptor, F_SETFL, flags & ~O_DIRECT);
}

}  // namespace

class StreamedFile::Blocks {
 public:
  Blocks(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;
  ~Blocks() {
    StopThread();
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  const std::string& path() const { return path_; }
  absl::Status Allocate(int64_t file_bytes);
  absl::Status Append(std::span<const std::byte> bytes);
  absl::Status SyncAndClose();

 private:
  struct Piece {
    std::span<const std::byte> bytes;
    int64_t offset;
  };

  // The current block, and what is behind it.
  std::span<const std::byte> Block() const {
    return memory_.span().subspan(static_cast<size_t>(current_ * kBlockBytes));
  }
  // Gives the full block to the thread and goes on with the other.
  absl::Status HandOver();
  // Waits for the thread to have nothing to do, and returns its error.
  absl::Status Await();
  void StopThread();
  void Work();
  absl::Status WriteAt(Piece piece);

  std::string path_;
  int descriptor_;
  AlignedBuffer<std::byte> memory_;  // Two blocks, or one for a file that fits.
  int64_t current_ = 0;
  int64_t filled_ = 0;  // Of the current block.
  int64_t offset_ = 0;  // Of the current block in the file.

  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Piece> pending_;  // Guarded by mutex_, as all below.
  bool stopping_ = false;
  absl::Status status_;
};

absl::Status StreamedFile::Blocks::Allocate(int64_t file_bytes) {
  // Together, so that they are large enough for huge pages: the disk then gets few, large pieces.
  SHARDMAX_ASSIGN_OR_RETURN(memory_,
                            AlignedBuffer<std::byte>::Allocate((file_bytes > kBlockBytes ? 2 : 1) * kBlockBytes));
  return absl::OkStatus();
}

absl::Status StreamedFile::Blocks::Append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), static_cast<size_t>(kBlockBytes - filled_));
    std::memcpy(memory_.data() + current_ * kBlockBytes + filled_, bytes.data(), count);
    bytes = bytes.subspan(count);
    filled_ += static_cast<int64_t>(count);
    if (filled_ == kBlockBytes) SHARDMAX_RETURN_IF_ERROR(HandOver());
  }
  return absl::OkStatus();
}

absl::Status StreamedFile::Blocks::HandOver() {
  SHARDMAX_RETURN_IF_ERROR(Await());
  if (!thread_.joinable()) thread_ = std::thread([this] { Work(); });
  {
    std::lock_guard lock(mutex_);
    pending_ = Piece{Block().first(kBlockBytes), offset_};
  }
  changed_.notify_all();
  filled_ = 0;
  offset_ += kBlockBytes;
  if (memory_.size() == kBlockBytes) return Await();
  current_ = 1 - current_;
  return absl::OkStatus();
}

absl::Status StreamedFile::Blocks::Await() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !pending_.has_value(); });
  return status_;
}

void StreamedFile::Blocks::StopThread() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void StreamedFile::Blocks::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || pending_.has_value(); });
    if (!pending_.has_value()) return;
    const Piece piece = *pending_;
    lock.unlock();
    const absl::Status written = WriteAt(piece);
    lock.lock();
    status_ = written;
    pending_.reset();
    changed_.notify_all();
    if (!written.ok()) return;
  }
}

absl::Status StreamedFile::Blocks::WriteAt(Piece piece) {
  bool direct = true;
  while (!piece.bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor_, piece.bytes.data(), piece.bytes.size(), piece.offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EINVAL && direct) {
      // A file system that takes the flag, but not this piece.
      LeaveDirect(descriptor_);
      direct = false;
      continue;
    }
    if (written < 0) return ErrnoError(errno, path_);
    piece = {piece.bytes.subspan(static_cast<size_t>(written)), piece.offset + written};
  }
  return absl::OkStatus();
}

absl::Status StreamedFile::Blocks::SyncAndClose() {
  SHARDMAX_RETURN_IF_ERROR(Await());
  StopThread();
  const std::span<const std::byte> rest = Block().first(static_cast<size_t>(filled_));
  const size_t aligned = rest.size() / kDirectAlignment * kDirectAlignment;
  SHARDMAX_RETURN_IF_ERROR(WriteAt({rest.first(aligned), offset_}));
  LeaveDirect(descriptor_);
  SHARDMAX_RETURN_IF_ERROR(WriteAt({rest.subspan(aligned), offset_ + static_cast<int64_t>(aligned)}));
  if (::fsync(descriptor_) != 0) return ErrnoError(errno, path_);
  if (::close(std::exchange(descriptor_, -1)) != 0) return ErrnoError(errno, path_);
  return absl::OkStatus();
}

StreamedFile::StreamedFile(std::unique_ptr<Blocks> blocks) : blocks_(std::move(blocks)) {}
StreamedFile::StreamedFile(StreamedFile&&) noexcept = default;
StreamedFile& StreamedFile::operator=(StreamedFile&&) noexcept = default;
StreamedFile::~StreamedFile() = default;

absl::StatusOr<StreamedFile> StreamedFile::Create(const std::string& path, int64_t bytes) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC;
  int descriptor = ::open(path.c_str(), kFlags | O_DIRECT, 0666);
  if (descriptor < 0 && errno == EINVAL) descriptor = ::open(path.c_str(), kFlags, 0666);
  if (descriptor < 0) return ErrnoError(errno, path);
  auto blocks = std::make_unique<Blocks>(path, descriptor);
  SHARDMAX_RETURN_IF_ERROR(Reserve(descriptor, bytes, path));
  SHARDMAX_RETURN_IF_ERROR(blocks->Allocate(bytes));
  return StreamedFile(std::move(blocks));
}

const std::string& StreamedFile::path() const {
  return blocks_->path();
}

absl::Status StreamedFile::Append(std::span<const std::byte> bytes) {
  return blocks_->Append(bytes);
}

absl::Status StreamedFile::SyncAndClose() {
  return blocks_->SyncAndClose();
}

}  // namespace shardmax
