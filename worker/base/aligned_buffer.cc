#include "worker/base/aligned_buffer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace shardmax {
namespace {

// Below this, huge pages would waste more than they save.
constexpr int64_t kHugePageThreshold = int64_t{8} << 20;

}  // namespace

PageBlock::~PageBlock() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}

absl::StatusOr<PageBlock> PageBlock::Allocate(int64_t bytes) {
  PageBlock block;
  if (bytes == 0) return block;
  void* data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return ErrnoError(errno, fmt::format("cannot allocate {} bytes", bytes));
  if (bytes >= kHugePageThreshold) madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // A hint: may fail.
  block.data_ = data;
  block.bytes_ = bytes;
  return block;
}

absl::StatusOr<PageBlock> PageBlock::MapNewFile(const std::string& path, int64_t bytes) {
  PageBlock block;
  if (bytes == 0) return block;
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return ErrnoError(errno, path);
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return ErrnoError(errno, path);
  // Sets no errno.
  int error = ::posix_fallocate(file, 0, bytes);
  void* data = MAP_FAILED;
  if (error == 0) {
    data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (data == MAP_FAILED) error = errno;
  }
  ::unlink(path.c_str());
  ::close(file);
  if (error != 0) return ErrnoError(error, fmt::format("{}: cannot take {} bytes", path, bytes));
  // Which rows are read next is known where they are used (Prefetch): what the system guesses would be wasted.
  madvise(data, static_cast<size_t>(bytes), MADV_RANDOM);
  block.data_ = data;
  block.bytes_ = bytes;
  return block;
}

void FetchPages(const void* data, int64_t bytes) {
  static const auto page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t before = reinterpret_cast<uintptr_t>(data) % page_bytes;  // Of the page that data begins in.
  char* first = static_cast<char*>(const_cast<void*>(data)) - before;
  if (bytes > 0) madvise(first, static_cast<size_t>(bytes) + before, MADV_WILLNEED);
}

}  // namespace shardmax
