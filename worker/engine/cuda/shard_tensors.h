// The shard on the device: weights, optimizer state, and what is derived from the weights.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/base/device_buffer.h"
#include "worker/engine/cuda/device_plan.h"
#include "worker/engine/cuda/kernels.h"
#include "worker/engine/engine.h"
#include "worker/engine/shard_state.h"

namespace shardmax::cuda {

// "weight" and the optimizer's tensors, float32 [C_r, stride], zero at first. Inverse norms and the bfloat16 copy
// follow the weights: after Write() at once, after an update because its kernel writes them.
class ShardTensors {
 public:
  static absl::StatusOr<ShardTensors> Allocate(const EngineOptions& options, const DevicePlan& plan,
                                               cudaStream_t stream);

  // As Engine::ReadRows and WriteRows; they wait for the stream.
  absl::Status Read(const std::string& tensor, Range classes, MatrixView<float> rows, cudaStream_t stream) const;
  absl::Status Write(const std::string& tensor, Range classes, MatrixView<const float> rows, cudaStream_t stream);

  // Of class k of the shard on.
  float* weights(int64_t k) const { return tensors_[0].data() + k * stride_; }
  float* state(int i, int64_t k) const {
    return i + 1 < static_cast<int>(tensors_.size()) ? tensors_[i + 1].data() + k * stride_ : nullptr;
  }
  __nv_bfloat16* bfloat16_weights(int64_t k) const {
    return bfloat16_.data() == nullptr ? nullptr : bfloat16_.data() + k * stride_;
  }
  // What products read: float32 or bfloat16.
  const void* operand(int64_t k) const {
    if (bfloat16_.data() != nullptr) return bfloat16_weights(k);
    return weights(k);
  }
  float* inverse_norms() const { return inverse_norms_.data(); }

 private:
  absl::Status Follow(Range local, cudaStream_t stream);

  TensorIndex index_;
  int64_t stride_ = 0;
  std::vector<DeviceBuffer<float>> tensors_;
  DeviceBuffer<float> inverse_norms_;  // [C_r], padded to a multiple of 8
  DeviceBuffer<__nv_bfloat16> bfloat16_;
};

}  // namespace shardmax::cuda
