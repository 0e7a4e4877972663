#include "worker/engine/cuda/graph_cache.h"

#include "worker/base/cuda_status.h"
#include "worker/base/status.h"

namespace shardmax::cuda {
namespace {

// Beyond this many shapes a job has no shapes that repeat, and launches kernel by kernel.
constexpr size_t kMaxGraphs = 64;

// Records what `enqueue` gives to `stream`, without running it.
absl::StatusOr<cudaGraphExec_t> Capture(cudaStream_t stream, const std::function<absl::Status()>& enqueue) {
  SHARDMAX_CUDA(cudaStreamBeginCapture, stream, cudaStreamCaptureModeThreadLocal);
  const absl::Status enqueued = enqueue();
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);  // Whatever happened, else the stream stays captured.
  const std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, decltype(&cudaGraphDestroy)> owner(graph, cudaGraphDestroy);
  SHARDMAX_RETURN_IF_ERROR(enqueued);
  SHARDMAX_RETURN_IF_ERROR(StatusOf(ended, "cudaStreamEndCapture"));
  cudaGraphExec_t exec = nullptr;
  SHARDMAX_CUDA(cudaGraphInstantiate, &exec, graph, 0);
  return exec;
}

}  // namespace

absl::Status GraphCache::Run(const GraphKey& key, int64_t generation, cudaStream_t stream,
                             const std::function<absl::Status()>& enqueue) {
  if (generation != generation_) graphs_.clear();
  generation_ = generation;
  const auto found = graphs_.find(key);
  if (found == graphs_.end()) {
    // The first time libraries may allocate and load what a capture does not allow.
    SHARDMAX_RETURN_IF_ERROR(enqueue());
    if (graphs_.size() < kMaxGraphs) graphs_.try_emplace(key);
    return absl::OkStatus();
  }
  Entry& entry = found->second;
  if (entry.exec == nullptr && !entry.is_refused) {
    if (absl::StatusOr<cudaGraphExec_t> exec = Capture(stream, enqueue); exec.ok()) {
      entry.exec.reset(*exec);
    } else {
      // A graph only saves launches: what is wrong with the phase itself shows when it is launched kernel by kernel.
      entry.is_refused = true;
      cudaGetLastError();  // Forgets it.
    }
  }
  if (entry.is_refused) return enqueue();
  SHARDMAX_CUDA(cudaGraphLaunch, entry.exec.get(), stream);
  return absl::OkStatus();
}

}  // namespace shardmax::cuda
