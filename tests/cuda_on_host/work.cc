// What streams are given to do: kernels, copies, and filling memory.
#include <cxxabi.h>
#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <string>

#include "cuda_runtime.h"
#include "tests/cuda_on_host/block.h"
#include "tests/cuda_on_host/control.h"
#include "tests/cuda_on_host/device_memory.h"
#include "tests/cuda_on_host/report.h"
#include "tests/cuda_on_host/stream.h"

namespace cuda_on_host {
namespace {

std::atomic<int64_t> kernels_run{0};
std::atomic<int> fault_device{-1};
std::atomic<uint64_t> refused_launches{0};  // Bit 0: the next one.

std::string NameOf(const void* kernel) {
  Dl_info info;
  if (dladdr(kernel, &info) == 0 || info.dli_sname == nullptr) return "a kernel";
  int status = 0;
  char* text = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
  const std::string name = status == 0 ? text : info.dli_sname;
  std::free(text);  // NOLINT: allocated by __cxa_demangle.
  return name.substr(0, name.find('('));
}

// Counts a launch of the device with the fault.
bool IsRefused() {
  uint64_t refused = refused_launches;
  while (!refused_launches.compare_exchange_weak(refused, refused >> 1)) {
  }
  return (refused & 1) != 0;
}

bool IsAllowed(const cudaLaunchConfig_t& c) {
  constexpr size_t kSharedBytes = size_t{48} << 10;
  const uint64_t threads = uint64_t{c.blockDim.x} * c.blockDim.y * c.blockDim.z;
  const uint64_t blocks = uint64_t{c.gridDim.x} * c.gridDim.y * c.gridDim.z;
  return threads >= 1 && threads <= 1024 && c.blockDim.z <= 64 && blocks >= 1 && c.gridDim.x <= 0x7fffffffU &&
         c.gridDim.y <= 65535 && c.gridDim.z <= 65535 && c.dynamicSmemBytes <= kSharedBytes;
}

}  // namespace

void SetLaunchFault(const LaunchFault& fault) {
  fault_device = -1;
  uint64_t refused = 0;
  for (const int launch : fault.launches) refused |= uint64_t{1} << (launch - 1);
  refused_launches = refused;
  fault_device = fault.device;
}

int64_t KernelsRun() {
  return kernels_run;
}

cudaError_t Launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> thread) {
  if (!IsAllowed(config)) return cudaErrorInvalidConfiguration;
  if (config.dynamicSmemBytes != 0) Report("the stand-in has no dynamic shared memory");
  if (DeviceOfThread() == fault_device && IsRefused()) return cudaErrorUnknown;
  const Grid grid = {
      .name = NameOf(kernel), .blocks = config.gridDim, .threads = config.blockDim, .kernel = std::move(thread)};
  EnqueueNow(config.stream, [grid] {
    const uint64_t seed = CurrentMachine().seed;
    RunGrid(grid, seed == 0 ? 0 : seed + static_cast<uint64_t>(kernels_run) + 1);
    ++kernels_run;
  });
  return cudaSuccess;
}

void ReportInactiveLane(const char* call, unsigned lane) {
  Report(std::string(call) + " reads lane " + std::to_string(lane) + ", which is not in the mask");
}

}  // namespace cuda_on_host

using cuda_on_host::CheckDeviceRange;
using cuda_on_host::EnqueueNow;

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  if (width > to_pitch || width > from_pitch) return cudaErrorInvalidValue;
  // The host's memory is read or written as late as the stream's turn comes, whether it is pinned or not: no caller may
  // rely on the courtesy that CUDA shows to pageable memory.
  EnqueueNow(stream, [=] {
    if (height == 0 || width == 0) return;
    const size_t to_bytes = to_pitch * (height - 1) + width;
    const size_t from_bytes = from_pitch * (height - 1) + width;
    if (kind != cudaMemcpyDeviceToHost) CheckDeviceRange(to, to_bytes, "destination of a copy");
    if (kind != cudaMemcpyHostToDevice) CheckDeviceRange(from, from_bytes, "source of a copy");
    for (size_t i = 0; i < height; ++i) {
      std::memcpy(static_cast<std::byte*>(to) + i * to_pitch, static_cast<const std::byte*>(from) + i * from_pitch,
                  width);
    }
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  EnqueueNow(stream, [=] {
    CheckDeviceRange(to, bytes, "cudaMemsetAsync");
    std::memset(to, value, bytes);
  });
  return cudaSuccess;
}
