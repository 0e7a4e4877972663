#include "tests/cuda_on_host/stream.h"

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <random>
#include <thread>

#include "tests/cuda_on_host/control.h"
#include "tests/cuda_on_host/report.h"

struct CUevent_st {
  cuda_on_host::Device* device = nullptr;
  bool is_timed = true;
  cudaStream_t stream = nullptr;
  int64_t recorded = 0;
  int64_t reached = 0;
  std::chrono::steady_clock::time_point time = {};  // When it was reached last.
};

namespace cuda_on_host {
namespace {

std::atomic<int64_t> host_waits{0};

Device& DeviceOf(int device) {
  static std::mutex* const mutex = new std::mutex;
  static auto* const devices = new std::map<int, std::unique_ptr<Device>>;
  std::lock_guard<std::mutex> lock(*mutex);
  auto& found = (*devices)[device];
  if (found == nullptr) found = std::make_unique<Device>();
  return *found;
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

}  // namespace

int64_t HostWaits() {
  return host_waits;
}

void Enqueue(cudaStream_t stream, Work work) {
  if (stream == nullptr) Report("work for the default stream: give it one");
  const Lock lock(stream->device->mutex);
  if (stream->capture != nullptr) {
    stream->capture->work.push_back(std::move(work));
    return;
  }
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
  Device& device = DeviceOf(DeviceOfThread());
  WaitUntil(device, [&] {
    bool empty = true;
    for (const cudaStream_t stream : device.streams) {
      RunAsFarAsPossible(stream);
      empty = empty && stream->work.empty();
    }
    return empty;
  });
}

}  // namespace cuda_on_host

using cuda_on_host::CheckNoCapture;
using cuda_on_host::DriverError;
using cuda_on_host::EnqueueNow;
using cuda_on_host::Lock;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned /*flags*/) {
  if (const cudaError_t error = DriverError(); error != cudaSuccess) return error;
  cuda_on_host::Device& device = cuda_on_host::DeviceOf(cuda_on_host::DeviceOfThread());
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
  CheckNoCapture("cudaStreamSynchronize");
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
  if (stream->capture != nullptr) cuda_on_host::Report("the stand-in captures no events");
  const int64_t generation = event->recorded;  // 0, where it was never recorded: no wait, as in CUDA.
  cuda_on_host::Enqueue(stream, [=] { return cuda_on_host::Reached(event, generation); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (const cudaError_t error = DriverError(); error != cudaSuccess) return error;
  *event = new CUevent_st{.device = &cuda_on_host::DeviceOf(cuda_on_host::DeviceOfThread()),
                          .is_timed = (flags & cudaEventDisableTiming) == 0};
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  cudaEventSynchronize(event);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (stream->capture != nullptr) cuda_on_host::Report("the stand-in captures no events");
  {
    const Lock lock(stream->device->mutex);
    event->stream = stream;
    ++event->recorded;
  }
  EnqueueNow(stream, [event, generation = event->recorded] {
    event->reached = generation;
    event->time = std::chrono::steady_clock::now();
  });
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(event->device->mutex);
  if (event->stream != nullptr && event->reached < event->recorded) cuda_on_host::RunOne(event->stream);
  if (event->reached < event->recorded) return cudaErrorNotReady;
  ++cuda_on_host::host_waits;  // Whoever asked until now has waited.
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  CheckNoCapture("cudaEventSynchronize");
  ++cuda_on_host::host_waits;
  cuda_on_host::WaitUntil(*event->device,
                          [&] { return event->stream == nullptr || cuda_on_host::Reached(event, event->recorded); });
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  const Lock lock(from->device->mutex);
  if (!from->is_timed || !to->is_timed || from->recorded == 0 || to->recorded == 0) {
    return cudaErrorInvalidResourceHandle;
  }
  if (from->reached < from->recorded || to->reached < to->recorded) return cudaErrorNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(to->time - from->time).count();
  return cudaSuccess;
}
