// Queues of work, and when it runs.
#pragma once

#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <vector>

#include "cuda_runtime.h"

namespace cuda_on_host {

// Returns whether it has finished; if not, it is called again later.
using Work = std::function<bool()>;

// Streams of one device share its lock: work of one may wait for another. Ranks that are threads have devices of their
// own, so they run side by side.
struct Device {
  std::recursive_mutex mutex;
  std::set<cudaStream_t> streams;
};
using Lock = std::lock_guard<std::recursive_mutex>;

// Gives work to a stream; one that is being captured keeps it for the graph. Reports the default stream, which nothing
// here uses.
void Enqueue(cudaStream_t stream, Work work);
// The same for work that never waits.
void EnqueueNow(cudaStream_t stream, std::function<void()> work);

// Runs all work of the calling thread's device.
void FinishDevice();

// Reports a call that a capture on the calling thread does not allow.
void CheckNoCapture(const char* call);

// The device that the calling thread has chosen.
int DeviceOfThread();

// What every call returns where there is no driver; cudaSuccess otherwise.
cudaError_t DriverError();

}  // namespace cuda_on_host

struct CUgraph_st {
  std::vector<cuda_on_host::Work> work;
};

struct CUstream_st {
  cuda_on_host::Device* device = nullptr;
  std::deque<cuda_on_host::Work> work;
  bool running = false;           // A stream that waits for itself, by way of another.
  cudaGraph_t capture = nullptr;  // What is being captured.
};
