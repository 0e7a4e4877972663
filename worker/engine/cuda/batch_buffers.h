// What a step needs of the device for its batch, beside the shard.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "absl/status/status.h"
#include "worker/base/device_buffer.h"
#include "worker/base/status.h"
#include "worker/engine/cuda/device_plan.h"
#include "worker/engine/cuda/kernels.h"
#include "worker/engine/engine.h"

namespace shardmax::cuda {

// Frees the old buffer before it makes the new one.
template <typename Buffer>
absl::Status Renew(Buffer& buffer, int64_t size) {
  buffer = Buffer();
  SHARDMAX_ASSIGN_OR_RETURN(buffer, Buffer::Allocate(size));
  return absl::OkStatus();
}

// Numbers that each row has in a step, [4, B] in one copy.
struct RowNumbers {
  float* thresholds = nullptr;
  float* shifts = nullptr;
  float* row_scales = nullptr;
  float* label_gradients = nullptr;

  static RowNumbers In(float* data, int64_t rows) { return {data, data + rows, data + 2 * rows, data + 3 * rows}; }
};

// Buffers for batches of up to capacity() rows. Grows when a larger batch comes, else allocates nothing.
struct BatchBuffers {
  // Waits for the device if it has to grow, as freeing memory does.
  absl::Status Reserve(const EngineOptions& options, int64_t rows, int64_t l2_bytes, cudaStream_t stream);

  int64_t capacity = 0;    // B
  int64_t generation = 0;  // Goes up when buffers move.
  DevicePlan plan;         // At that capacity.
  int slots = 0;           // Of partials, for each row.

  DeviceBuffer<StepState> step;                    // [1]
  DeviceBuffer<float> features;                    // [B, stride]
  DeviceBuffer<__nv_bfloat16> bfloat16_features;   // [B, stride], with bfloat16
  DeviceBuffer<float> feature_gradients;           // [B, stride]
  DeviceBuffer<int32_t> labels;                    // [B]
  DeviceBuffer<float> label_cosines;               // [B]
  DeviceBuffer<float> row_numbers;                 // [4, B]
  DeviceBuffer<ShardPartial> partials;             // [slots, B]
  DeviceBuffer<ShardPartial> merged;               // [B]
  DeviceBuffer<NearestClass> nearest;              // [B]
  DeviceBuffer<float> products;                    // [B, tile]
  DeviceBuffer<__nv_bfloat16> bfloat16_gradients;  // [B, tile], with bfloat16
  DeviceBuffer<float> weight_gradients;            // [tile, stride]

  // Page-locked, so that copies do not wait for the host or it for them.
  PinnedBuffer<StepState> host_step;        // [1]
  PinnedBuffer<float> host_row_numbers;     // [4, B]
  PinnedBuffer<float> host_label_cosines;   // [B]
  PinnedBuffer<ShardPartial> host_merged;   // [B]
  PinnedBuffer<NearestClass> host_nearest;  // [B]
};

}  // namespace shardmax::cuda
