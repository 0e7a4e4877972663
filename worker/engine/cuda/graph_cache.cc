#include "worker/engine/cuda/graph_cache.h"

#include <utility>

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
    if (graphs_.size() < kMaxGraphs) graphs_.emplace(key, Exec(nullptr, cudaGraphExecDestroy));
    return absl::OkStatus();
  }
  if (found->second == nullptr) {
    SHARDMAX_ASSIGN_OR_RETURN(const cudaGraphExec_t exec, Capture(stream, enqueue));
    found->second.reset(exec);
  }
  SHARDMAX_CUDA(cudaGraphLaunch, found->second.get(), stream);
  return absl::OkStatus();
}

}  // namespace shardmax::cuda
