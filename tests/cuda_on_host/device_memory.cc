#include "tests/cuda_on_host/device_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>

#include "cuda_runtime.h"
#include "tests/cuda_on_host/block.h"
#include "tests/cuda_on_host/control.h"
#include "tests/cuda_on_host/report.h"
#include "tests/cuda_on_host/stream.h"
#include "tests/support/sanitizers.h"

namespace cuda_on_host {
namespace {

constexpr size_t kAlignment = 16;
constexpr size_t kFilledBytes = size_t{16} << 20;
constexpr int kFill = 0xFF;  // NaN as float32, float64 and bfloat16, -1 as an integer: what was never written shows.

struct Allocation {
  std::byte* pages = nullptr;
  size_t page_bytes = 0;
  size_t bytes = 0;
  int device = 0;
  bool pinned_host = false;
  bool live = true;
};

size_t RoundUp(size_t value, size_t to) {
  return (value + to - 1) / to * to;
}

class Heap {
 public:
  void* Allocate(size_t bytes, int device, bool pinned_host) {
    std::lock_guard<std::mutex> lock(mutex_);
    InstallHandler();
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    Allocation a = {.page_bytes = RoundUp(RoundUp(bytes, kAlignment), page),
                    .bytes = bytes,
                    .device = device,
                    .pinned_host = pinned_host};
    if (!pinned_host && used_[device] + bytes > CurrentMachine().memory_bytes) return nullptr;
    void* pages = mmap(nullptr, a.page_bytes + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) return nullptr;
    a.pages = static_cast<std::byte*>(pages);
    if (mprotect(a.pages, a.page_bytes, PROT_READ | PROT_WRITE) != 0) return nullptr;
    // Of a block as large as a library's workspace only the end: touching all of it is most of a small test's time.
    const size_t filled = a.page_bytes <= kFilledBytes ? a.page_bytes : kFilledBytes;
    std::memset(a.pages + a.page_bytes - filled, kFill, filled);
    if (!pinned_host) used_[device] += bytes;
    std::byte* pointer = a.pages + a.page_bytes - RoundUp(bytes, kAlignment);
    allocations_[pointer] = a;
    return pointer;
  }

  void Free(void* pointer) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = allocations_.find(static_cast<std::byte*>(pointer));
    if (found == allocations_.end() || !found->second.live) Report("freed what is not allocated, or freed it twice");
    Allocation& a = found->second;
    CheckEdges(found->first, a);
    // The addresses stay taken, so that a use after this is seen.
    mmap(a.pages, a.page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    a.live = false;
    if (!a.pinned_host) used_[a.device] -= a.bytes;
  }

  void Check(const void* pointer, size_t bytes, const std::string& what) {
    if (bytes == 0) return;
    std::lock_guard<std::mutex> lock(mutex_);
    const auto* first = static_cast<const std::byte*>(pointer);
    auto after = allocations_.upper_bound(const_cast<std::byte*>(first));
    if (after == allocations_.begin()) Report(what + ": not the memory of a device");
    const auto& [start, a] = *std::prev(after);
    const auto offset = static_cast<size_t>(first - start);
    if (first >= a.pages + a.page_bytes) Report(what + ": not the memory of a device");
    if (!a.live) Report(what + ": the memory was freed");
    if (a.pinned_host) Report(what + ": this is memory of the host");
    if (offset + bytes > a.bytes) {
      Report(what + ": bytes " + std::to_string(offset) + " to " + std::to_string(offset + bytes) +
             " of an allocation of " + std::to_string(a.bytes));
    }
  }

  size_t used(int device) {
    std::lock_guard<std::mutex> lock(mutex_);
    return used_[device];
  }
  size_t used() {
    std::lock_guard<std::mutex> lock(mutex_);
    size_t total = 0;
    for (const auto& [device, bytes] : used_) total += bytes;
    return total;
  }

  // For the signal handler: no lock, as the process ends.
  void Describe(const void* address) {
    const auto* at = static_cast<const std::byte*>(address);
    for (const auto& [start, a] : allocations_) {
      if (at < a.pages || at >= a.pages + a.page_bytes + 4096) continue;
      std::fprintf(stderr, "cuda_on_host: touched byte %lld of an allocation of %zu bytes%s%s\n",
                   static_cast<long long>(at - start), a.bytes, a.live ? "" : " that was freed", WhatRuns().c_str());
      return;
    }
  }

 private:
  // Bytes before and after, on the same pages, must be as they were.
  static void CheckEdges(const std::byte* start, const Allocation& a) {
    const auto untouched = [](const std::byte* from, const std::byte* to) {
      for (; from < to; ++from) {
        if (*from != std::byte{kFill}) return false;
      }
      return true;
    };
    if (a.page_bytes <= kFilledBytes && !untouched(a.pages, start))
      Report("something wrote before an allocation of " + std::to_string(a.bytes));
    if (!untouched(start + a.bytes, a.pages + a.page_bytes)) {
      Report("something wrote past the end of an allocation of " + std::to_string(a.bytes) + " bytes");
    }
  }

  static void InstallHandler();

  std::mutex mutex_;
  std::map<std::byte*, Allocation> allocations_;
  std::map<int, size_t> used_;
};

Heap& TheHeap() {
  static Heap* const heap = new Heap;  // Never destroyed: buffers of static objects are freed late.
  return *heap;
}

[[maybe_unused]] void OnBadAddress(int signal_number, siginfo_t* info, void* /*context*/) {
  TheHeap().Describe(info->si_addr);
  std::signal(signal_number, SIG_DFL);
  std::raise(signal_number);
}

void Heap::InstallHandler() {
#if !defined(SHARDMAX_ASAN)
  static const bool installed = [] {
    struct sigaction action = {};
    action.sa_sigaction = OnBadAddress;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    return sigaction(SIGSEGV, &action, nullptr) == 0;
  }();
  (void)installed;
#endif
}

std::atomic<int64_t> allocation_calls{0};

}  // namespace

void CheckDeviceRange(const void* pointer, size_t bytes, const std::string& what) {
  TheHeap().Check(pointer, bytes, what);
}

size_t AllocatedBytes() {
  return TheHeap().used();
}

int64_t AllocationCalls() {
  return allocation_calls;
}

}  // namespace cuda_on_host

using cuda_on_host::TheHeap;

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  if (const cudaError_t error = cuda_on_host::DriverError(); error != cudaSuccess) return error;
  cuda_on_host::CheckNoCapture("allocating or freeing memory");
  ++cuda_on_host::allocation_calls;
  *pointer = bytes == 0 ? nullptr : TheHeap().Allocate(bytes, cuda_on_host::DeviceOfThread(), false);
  return *pointer == nullptr && bytes != 0 ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  cuda_on_host::CheckNoCapture("allocating or freeing memory");
  ++cuda_on_host::allocation_calls;
  if (pointer == nullptr) return cudaSuccess;
  cuda_on_host::FinishDevice();  // As CUDA's does.
  TheHeap().Free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  if (const cudaError_t error = cuda_on_host::DriverError(); error != cudaSuccess) return error;
  cuda_on_host::CheckNoCapture("allocating or freeing memory");
  ++cuda_on_host::allocation_calls;
  *pointer = bytes == 0 ? nullptr : TheHeap().Allocate(bytes, 0, true);
  return *pointer == nullptr && bytes != 0 ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  cuda_on_host::CheckNoCapture("allocating or freeing memory");
  ++cuda_on_host::allocation_calls;
  if (pointer == nullptr) return cudaSuccess;
  cuda_on_host::FinishDevice();
  TheHeap().Free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  if (const cudaError_t error = cuda_on_host::DriverError(); error != cudaSuccess) return error;
  *total_bytes = cuda_on_host::CurrentMachine().memory_bytes;
  const size_t used = TheHeap().used(cuda_on_host::DeviceOfThread());
  *free_bytes = *total_bytes - (used < *total_bytes ? used : *total_bytes);
  return cudaSuccess;
}
