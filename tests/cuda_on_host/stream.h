// Queues of work, and when it runs.
#pragma once

#include <functional>

#include "cuda_runtime.h"

namespace cuda_on_host {

// Gives work to a stream. `work` returns whether it has finished; if not, it is called again later. Reports the
// default stream, which nothing here uses.
void Enqueue(cudaStream_t stream, std::function<bool()> work);
// The same for work that never waits.
void EnqueueNow(cudaStream_t stream, std::function<void()> work);

// Runs all work of the calling thread's device.
void FinishDevice();

// What every call returns where there is no driver; cudaSuccess otherwise.
cudaError_t DriverError();

}  // namespace cuda_on_host
