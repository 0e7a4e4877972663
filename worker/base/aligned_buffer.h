// Large arrays of numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/statusor.h"
#include "worker/base/matrix_view.h"
#include "worker/base/status.h"

namespace shardmax {

// Zeroed pages from the system, on huge pages where it has them; a page costs memory from the first write on.
class PageBlock {
 public:
  PageBlock() = default;
  ~PageBlock();
  PageBlock(PageBlock&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  PageBlock& operator=(PageBlock&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  // ResourceExhausted, with the bytes needed, if the system has none left.
  static absl::StatusOr<PageBlock> Allocate(int64_t bytes);

  // The pages of a new file, of zeros, which loses its name `path` at once and goes with the block, however the process
  // ends. All of its room is taken now: a disk that fills up later does not matter. The system's error, naming the path
  // and the bytes; a file that is there is replaced.
  static absl::StatusOr<PageBlock> MapNewFile(const std::string& path, int64_t bytes);

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Has the disk begin to read the pages of a file that hold `bytes` from `data` on, if they are not in memory. Does not
// wait for it, and reports no error.
void FetchPages(const void* data, int64_t bytes);

// An owned array of `size` zeros of a trivial type, aligned to at least 64 bytes. Movable, not copyable.
template <typename T>
class AlignedBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  AlignedBuffer() = default;

  static absl::StatusOr<AlignedBuffer> Allocate(int64_t size) {
    AlignedBuffer buffer;
    SHARDMAX_ASSIGN_OR_RETURN(buffer.block_, PageBlock::Allocate(size * static_cast<int64_t>(sizeof(T))));
    buffer.size_ = size;
    return buffer;
  }

  // As PageBlock::MapNewFile.
  static absl::StatusOr<AlignedBuffer> MapNewFile(const std::string& path, int64_t size) {
    AlignedBuffer buffer;
    SHARDMAX_ASSIGN_OR_RETURN(buffer.block_, PageBlock::MapNewFile(path, size * static_cast<int64_t>(sizeof(T))));
    buffer.size_ = size;
    return buffer;
  }

  T* data() { return static_cast<T*>(block_.data()); }
  const T* data() const { return static_cast<const T*>(block_.data()); }
  int64_t size() const { return size_; }
  std::span<T> span() { return {data(), static_cast<size_t>(size_)}; }
  std::span<const T> span() const { return {data(), static_cast<size_t>(size_)}; }

 private:
  PageBlock block_;
  int64_t size_ = 0;
};

// Replaces `buffer` by a larger one, of zeros, where it has less than `size` elements.
template <typename T>
absl::Status Grow(AlignedBuffer<T>& buffer, int64_t size) {
  if (buffer.size() >= size) return absl::OkStatus();
  buffer = AlignedBuffer<T>();  // Frees first.
  SHARDMAX_ASSIGN_OR_RETURN(buffer, AlignedBuffer<T>::Allocate(size));
  return absl::OkStatus();
}

}  // namespace shardmax
