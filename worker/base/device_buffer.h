// Owners of what the CUDA runtime hands out. Made and destroyed with their device current; destroying one waits for it.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "worker/base/cuda_status.h"

namespace shardmax::cuda {

// `size` elements of T in device memory, or in page-locked memory of the host; not initialised.
template <typename T, cudaError_t (*kAllocate)(void**, size_t), cudaError_t (*kFree)(void*)>
class Buffer {
 public:
  Buffer() = default;
  ~Buffer() {
    if (data_ != nullptr) kFree(data_);
  }
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  // ResourceExhausted, with the bytes.
  static absl::StatusOr<Buffer> Allocate(int64_t size) {
    Buffer buffer;
    const int64_t bytes = size * static_cast<int64_t>(sizeof(T));
    void* data = nullptr;
    const cudaError_t error = kAllocate(&data, static_cast<size_t>(bytes));
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // It would show again in the next call.
      return Error(absl::StatusCode::kResourceExhausted, "cannot allocate {} bytes: {}", bytes,
                   cudaGetErrorString(error));
    }
    SHARDMAX_RETURN_IF_ERROR(StatusOf(error, "cudaMalloc"));
    buffer.data_ = static_cast<T*>(data);
    buffer.size_ = size;
    return buffer;
  }

  T* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

inline cudaError_t AllocateDevice(void** pointer, size_t bytes) {
  return cudaMalloc(pointer, bytes);
}
inline cudaError_t AllocatePinned(void** pointer, size_t bytes) {
  return cudaMallocHost(pointer, bytes);
}

template <typename T>
using DeviceBuffer = Buffer<T, AllocateDevice, cudaFree>;
template <typename T>
using PinnedBuffer = Buffer<T, AllocatePinned, cudaFreeHost>;

class Stream {
 public:
  Stream() = default;
  ~Stream() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  Stream& operator=(Stream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  static absl::StatusOr<Stream> Make() {
    Stream stream;
    SHARDMAX_CUDA(cudaStreamCreateWithFlags, &stream.stream_, cudaStreamNonBlocking);
    return stream;
  }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event() = default;
  ~Event() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }
  // cudaEventDefault keeps the time, for cudaEventElapsedTime.
  static absl::StatusOr<Event> Make(unsigned flags = cudaEventDisableTiming) {
    Event event;
    SHARDMAX_CUDA(cudaEventCreateWithFlags, &event.event_, flags);
    return event;
  }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace shardmax::cuda
