#include "worker/data/mapped_file.h"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "worker/base/status.h"
#include "worker/data/file.h"

namespace shardmax {

MappedFile::MappedFile(std::string path, std::span<const std::byte> bytes) : path_(std::move(path)), bytes_(bytes) {}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    Unmap();
    path_ = std::move(other.path_);
    bytes_ = std::exchange(other.bytes_, {});
  }
  return *this;
}

MappedFile::~MappedFile() {
  Unmap();
}

void MappedFile::Unmap() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  bytes_ = {};
}

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path, Access access) {
  SHARDMAX_ASSIGN_OR_RETURN(File file, File::OpenForReading(path));
  const auto size = static_cast<size_t>(file.size());
  if (size == 0) return MappedFile(path, {});  // mmap refuses a length of 0.
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.descriptor(), 0);
  if (address == MAP_FAILED) return ErrnoError(errno, path);
  MappedFile mapped(path, {static_cast<const std::byte*>(address), size});
  const int advice = access == Access::kSequential ? MADV_SEQUENTIAL : MADV_NORMAL;
  if (::madvise(address, size, advice) != 0) return ErrnoError(errno, path);
  return mapped;
}

}  // namespace shardmax
