#include "worker/base/aligned_buffer.h"

#include <sys/mman.h>

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

}  // namespace shardmax
