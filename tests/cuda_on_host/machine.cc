// The machine that the stand-in pretends to be, and its devices as programs ask for them.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <sstream>
#include <string>

#include "cuda_runtime.h"
#include "tests/cuda_on_host/control.h"
#include "tests/cuda_on_host/report.h"
#include "tests/cuda_on_host/stream.h"

namespace cuda_on_host {
namespace {

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
    } else if (name == "graphs") {
      machine.graphs = value != "0";
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

thread_local int device_of_thread = 0;

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

cudaError_t DriverError() {
  const Machine machine = CurrentMachine();
  if (!machine.driver) return cudaErrorInsufficientDriver;
  return machine.devices > 0 ? cudaSuccess : cudaErrorNoDevice;
}

int DeviceOfThread() {
  return device_of_thread;
}

}  // namespace cuda_on_host

using cuda_on_host::CurrentMachine;
using cuda_on_host::DriverError;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (const cudaError_t error = DriverError(); error != cudaSuccess) return error;
  *count = CurrentMachine().devices;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (const cudaError_t error = DriverError(); error != cudaSuccess) return error;
  if (device < 0 || device >= CurrentMachine().devices) return cudaErrorInvalidDevice;
  cuda_on_host::device_of_thread = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = cuda_on_host::device_of_thread;
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
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
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
