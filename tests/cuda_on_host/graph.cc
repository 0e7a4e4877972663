// CUDA graphs: what a stream was given while it was captured, in that order, and given again at each launch.
#include <atomic>
#include <string>
#include <utility>

#include "cuda_runtime.h"
#include "tests/cuda_on_host/control.h"
#include "tests/cuda_on_host/report.h"
#include "tests/cuda_on_host/stream.h"

struct CUgraphExec_st {
  std::vector<cuda_on_host::Work> work;
};

namespace cuda_on_host {
namespace {

std::atomic<int64_t> graphs_made{0};
std::atomic<int64_t> graph_launches{0};
// As with cudaStreamCaptureModeThreadLocal: a capture forbids some calls to the thread that began it.
thread_local int captures = 0;

}  // namespace

int64_t GraphsMade() {
  return graphs_made;
}
int64_t GraphLaunches() {
  return graph_launches;
}

void CheckNoCapture(const char* call) {
  if (captures > 0) Report(std::string(call) + " while a stream is captured");
}

}  // namespace cuda_on_host

using cuda_on_host::Lock;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (mode != cudaStreamCaptureModeThreadLocal) cuda_on_host::Report("the stand-in captures in thread-local mode only");
  const Lock lock(stream->device->mutex);
  if (stream->capture != nullptr) return cudaErrorInvalidValue;
  stream->capture = new CUgraph_st;
  ++cuda_on_host::captures;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(stream->device->mutex);
  *graph = stream->capture;
  if (*graph == nullptr) return cudaErrorInvalidValue;
  stream->capture = nullptr;
  --cuda_on_host::captures;
  if (cuda_on_host::CurrentMachine().graphs) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  return cudaErrorStreamCaptureInvalidated;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long /*flags*/) {
  ++cuda_on_host::graphs_made;
  *exec = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  ++cuda_on_host::graph_launches;
  for (const cuda_on_host::Work& work : exec->work) cuda_on_host::Enqueue(stream, work);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
