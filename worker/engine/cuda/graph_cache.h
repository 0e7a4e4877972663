// CUDA graphs of phases: a sequence of launches that comes again is given to the device in one call.
#pragma once

#include <cuda_runtime.h>

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <type_traits>

#include "absl/status/status.h"
#include "worker/optim/update_rule.h"

namespace shardmax::cuda {

enum class GraphPhase { kScore, kBackward };

// All that the launches of a phase depend on, beside what lies in device memory.
struct GraphKey {
  GraphPhase phase = GraphPhase::kScore;
  int64_t rows = 0;
  int64_t block_place = 0;  // Of this rank's block of partials, in bytes.
  bool with_feature_gradients = false;
  OptimizerKind optimizer = OptimizerKind::kSgd;
  bool has_momentum = false;
  bool is_nesterov = false;

  friend auto operator<=>(const GraphKey&, const GraphKey&) = default;
};

// A key is captured when it comes the second time, so shapes that do not repeat cost nothing; then it is launched. One
// that cannot be captured is launched kernel by kernel for good.
class GraphCache {
 public:
  // Enqueues on `stream` what `enqueue` does there. `enqueue` depends on nothing but the key, and on where buffers are:
  // another `generation` says that they have moved, and the stream had been waited for then.
  absl::Status Run(const GraphKey& key, int64_t generation, cudaStream_t stream,
                   const std::function<absl::Status()>& enqueue);

 private:
  using Exec = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, decltype(&cudaGraphExecDestroy)>;

  struct Entry {
    Exec exec{nullptr, cudaGraphExecDestroy};  // Null: seen once, or refused.
    bool is_refused = false;                   // The driver or a library does not let it be captured.
  };

  int64_t generation_ = 0;
  std::map<GraphKey, Entry> graphs_;
};

}  // namespace shardmax::cuda
