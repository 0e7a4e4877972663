#include "tests/cuda_on_host/stream.h"

#include <cxxabi.h>
#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#include "tests/cuda_on_host/block.h"
#include "tests/cuda_on_host/control.h"
#include "tests/cuda_on_host/device_memory.h"
#include "tests/cuda_on_host/report.h"

namespace {

// Streams of one device share its lock: work of one may wait for another. Ranks that are threads have devices of their
// own, so they run side by side.
struct Device {
  std::recursive_mutex mutex;
  std::set<cudaStream_t> streams;
};

Device& DeviceOf(int device) {
  static std::mutex* const mutex = new std::mutex;
  static auto* const devices = new std::map<int, std::unique_ptr<Device>>;
  std::lock_guard<std::mutex> lock(*mutex);
  auto& found = (*devices)[device];
  if (found == nullptr) found = std::make_unique<Device>();
  return *found;
}

thread_local int device_of_thread = 0;

}  // namespace

struct CUstream_st {
  Device* device = nullptr;
  std::deque<std::function<bool()>> work;
  bool running = false;  // A stream that waits for itself, by way of another.
};

struct CUevent_st {
  Device* device = nullptr;
  cudaStream_t stream = nullptr;
  int64_t recorded = 0;
  int64_t reached = 0;
};

namespace cuda_on_host {
namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

std::atomic<int64_t> kernels_run{0};
std::atomic<int64_t> host_waits{0};

Machine FromEnvironment() {
  Machine machine;
  const char* text = std::getenv("CUDA_ON_HOST");
  std::istringstream settings(text == nullptr ? "" : text);
  for (std::string setting; std::getline(settings, setting, ',');) {
    const size_t equals = setting.find('=');
    const std::string name = setting.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : setting.substr(equals + 1);
    if (name == "devices") {
      machine.devices = std::stoi(value);
    } else if (name == "driver") {
      machine.driver = value != "0";
    } else if (name == "cc") {
      machine.compute_capability = std::stoi(value);
    } else if (name == "memory") {
      machine.memory_bytes = std::stoull(value);
    } else if (name == "l2") {
      machine.l2_bytes = std::stoi(value);
    } else if (name == "timing") {
      machine.timing = value == "late" ? Timing::kLate : value == "sometimes" ? Timing::kSometimes : Timing::kAtOnce;
    } else if (name == "seed") {
      machine.seed = std::stoull(value);
    } else {
      Report("CUDA_ON_HOST has an unknown setting: " + setting);
    }
  }
  return machine;
}

struct Settings {
  std::mutex mutex;
  Machine machine = FromEnvironment();
};

Settings& TheSettings() {
  static auto* const settings = new Settings;
  return *settings;
}

bool Coin() {
  thread_local std::mt19937_64 random(CurrentMachine().seed + 1);
  return (random() & 1U) != 0;
}

// Runs the work at the head of the stream; whether there was some and it finished.
bool RunOne(cudaStream_t stream) {
  if (stream->work.empty() || stream->running) return false;
  stream->running = true;
  const bool finished = stream->work.front()();
  stream->running = false;
  if (finished) stream->work.pop_front();
  return finished;
}

void RunAsFarAsPossible(cudaStream_t stream) {
  while (RunOne(stream)) {
  }
}

bool Reached(cudaEvent_t event, int64_t generation) {
  while (event->reached < generation && RunOne(event->stream)) {
  }
  return event->reached >= generation;
}

// Calls `done` under the device's lock until it returns true, while other ranks bring what it waits for.
template <typename Done>
void WaitUntil(Device& device, const Done& done) {
  for (;;) {
    {
      const Lock lock(device.mutex);
      if (done()) return;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

std::string NameOf(const void* kernel) {
  Dl_info info;
  if (dladdr(kernel, &info) == 0 || info.dli_sname == nullptr) return "a kernel";
  int status = 0;
  char* text = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
  const std::string name = status == 0 ? text : info.dli_sname;
  std::free(text);  // NOLINT: allocated by __cxa_demangle.
  return name.substr(0, name.find('('));
}

bool IsAllowed(const cudaLaunchConfig_t& c) {
  constexpr size_t kSharedBytes = size_t{48} << 10;
  const uint64_t threads = uint64_t{c.blockDim.x} * c.blockDim.y * c.blockDim.z;
  const uint64_t blocks = uint64_t{c.gridDim.x} * c.gridDim.y * c.gridDim.z;
  return threads >= 1 && threads <= 1024 && c.blockDim.z <= 64 && blocks >= 1 && c.gridDim.x <= 0x7fffffffU &&
         c.gridDim.y <= 65535 && c.gridDim.z <= 65535 && c.dynamicSmemBytes <= kSharedBytes;
}

}  // namespace

void SetMachine(const Machine& machine) {
  Settings& settings = TheSettings();
  std::lock_guard<std::mutex> lock(settings.mutex);
  settings.machine = machine;
}

Machine CurrentMachine() {
  Settings& settings = TheSettings();
  std::lock_guard<std::mutex> lock(settings.mutex);
  return settings.machine;
}

int64_t KernelsRun() {
  return kernels_run;
}
int64_t HostWaits() {
  return host_waits;
}

cudaError_t DriverError() {
  const Machine machine = CurrentMachine();
  if (!machine.driver) return cudaErrorInsufficientDriver;
  return machine.devices > 0 ? cudaSuccess : cudaErrorNoDevice;
}

void Enqueue(cudaStream_t stream, std::function<bool()> work) {
  if (stream == nullptr) Report("work for the default stream: give it one");
  const Lock lock(stream->device->mutex);
  stream->work.push_back(std::move(work));
  const Timing timing = CurrentMachine().timing;
  if (timing == Timing::kAtOnce || (timing == Timing::kSometimes && Coin())) RunAsFarAsPossible(stream);
}

void EnqueueNow(cudaStream_t stream, std::function<void()> work) {
  Enqueue(stream, [work = std::move(work)] {
    work();
    return true;
  });
}

void FinishDevice() {
  Device& device = DeviceOf(device_of_thread);
  WaitUntil(device, [&] {
    bool empty = true;
    for (const cudaStream_t stream : device.streams) {
      RunAsFarAsPossible(stream);
      empty = empty && stream->work.empty();
    }
    return empty;
  });
}

cudaError_t Launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> thread) {
  if (!IsAllowed(config)) return cudaErrorInvalidConfiguration;
  if (config.dynamicSmemBytes != 0) Report("the stand-in has no dynamic shared memory");
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
using cuda_on_host::CurrentMachine;
using cuda_on_host::DriverError;
using cuda_on_host::EnqueueNow;
using cuda_on_host::Lock;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (const cudaError_t error = DriverError(); error != cudaSuccess) return error;
  *count = CurrentMachine().devices;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (const cudaError_t error = DriverError(); error != cudaSuccess) return error;
  if (device < 0 || device >= CurrentMachine().devices) return cudaErrorInvalidDevice;
  device_of_thread = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = device_of_thread;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (const cudaError_t error = DriverError(); error != cudaSuccess) return error;
  const cuda_on_host::Machine machine = CurrentMachine();
  if (device < 0 || device >= machine.devices) return cudaErrorInvalidDevice;
  *properties = {};
  std::snprintf(properties->name, sizeof(properties->name), "host stand-in");
  properties->totalGlobalMem = machine.memory_bytes;
  properties->major = machine.compute_capability / 10;
  properties->minor = machine.compute_capability % 10;
  properties->multiProcessorCount = 4;
  properties->l2CacheSize = machine.l2_bytes;
  return cudaSuccess;
}

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

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned /*flags*/) {
  if (const cudaError_t error = DriverError(); error != cudaSuccess) return error;
  Device& device = DeviceOf(device_of_thread);
  const Lock lock(device.mutex);
  *stream = new CUstream_st{.device = &device};
  device.streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  cudaStreamSynchronize(stream);
  {
    const Lock lock(stream->device->mutex);
    stream->device->streams.erase(stream);
  }
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  ++cuda_on_host::host_waits;
  cuda_on_host::WaitUntil(*stream->device, [&] {
    cuda_on_host::RunAsFarAsPossible(stream);
    return stream->work.empty();
  });
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Lock lock(stream->device->mutex);
  cuda_on_host::RunOne(stream);
  return stream->work.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
  const int64_t generation = event->recorded;  // 0, where it was never recorded: no wait, as in CUDA.
  cuda_on_host::Enqueue(stream, [=] { return cuda_on_host::Reached(event, generation); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) {
  if (const cudaError_t error = DriverError(); error != cudaSuccess) return error;
  *event = new CUevent_st{.device = &DeviceOf(device_of_thread)};
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  cudaEventSynchronize(event);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  {
    const Lock lock(stream->device->mutex);
    event->stream = stream;
    ++event->recorded;
  }
  EnqueueNow(stream, [event, generation = event->recorded] { event->reached = generation; });
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(event->device->mutex);
  if (event->stream != nullptr && event->reached < event->recorded) cuda_on_host::RunOne(event->stream);
  return event->reached >= event->recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  ++cuda_on_host::host_waits;
  cuda_on_host::WaitUntil(*event->device,
                          [&] { return event->stream == nullptr || cuda_on_host::Reached(event, event->recorded); });
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  return cudaSuccess;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    default:
      return "cudaErrorUnknown";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    default:
      return "unknown error";
  }
}
