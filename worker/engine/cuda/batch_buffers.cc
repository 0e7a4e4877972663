#include "worker/engine/cuda/batch_buffers.h"

#include "worker/base/cuda_status.h"
#include "worker/base/status.h"

namespace shardmax::cuda {
namespace {

template <typename T>
absl::Status Clear(const DeviceBuffer<T>& buffer, cudaStream_t stream) {
  SHARDMAX_CUDA(cudaMemsetAsync, buffer.data(), 0, static_cast<size_t>(buffer.size()) * sizeof(T), stream);
  return absl::OkStatus();
}

}  // namespace

absl::Status BatchBuffers::Reserve(const EngineOptions& options, int64_t rows, int64_t l2_bytes, cudaStream_t stream) {
  if (rows <= capacity) return absl::OkStatus();
  SHARDMAX_CUDA(cudaStreamSynchronize, stream);
  capacity = 0;  // Until all is there.
  ++generation;
  const bool bfloat16 = options.precision == Precision::kBfloat16;
  plan = PlanDevice(options, rows, l2_bytes);
  slots = ScoreSlots(plan.tile_classes);
  SHARDMAX_RETURN_IF_ERROR(Renew(step, 1));
  SHARDMAX_RETURN_IF_ERROR(Renew(host_step, 1));
  SHARDMAX_RETURN_IF_ERROR(Renew(features, rows * plan.stride));
  SHARDMAX_RETURN_IF_ERROR(Clear(features, stream));  // The padding of its rows stays zero.
  if (bfloat16) {
    SHARDMAX_RETURN_IF_ERROR(Renew(bfloat16_features, rows * plan.stride));
    SHARDMAX_RETURN_IF_ERROR(Renew(bfloat16_gradients, rows * plan.tile_classes));
  }
  SHARDMAX_RETURN_IF_ERROR(Renew(feature_gradients, rows * plan.stride));
  SHARDMAX_RETURN_IF_ERROR(Renew(labels, rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(label_cosines, rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(row_numbers, 4 * rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(partials, slots * rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(merged, rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(nearest, rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(products, rows * plan.tile_classes));
  SHARDMAX_RETURN_IF_ERROR(Renew(weight_gradients, plan.tile_classes * plan.stride));
  SHARDMAX_RETURN_IF_ERROR(Renew(host_row_numbers, 4 * rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(host_label_cosines, rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(host_merged, rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(host_nearest, rows));
  capacity = rows;
  return absl::OkStatus();
}

}  // namespace shardmax::cuda
