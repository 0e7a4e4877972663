// What a step needs of the device to exchange with others, beside the batch.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "worker/base/device_buffer.h"
#include "worker/engine/cuda/step_state.h"
#include "worker/engine/device_phases.h"

namespace shardmax::cuda {

// Buffers for steps of up to `rows` rows, of which a rank brings up to `block_rows`. They grow, else nothing is
// allocated.
struct ExchangeBuffers {
  // Waits for `stream` and `wire` if it has to grow, as freeing memory does.
  absl::Status Reserve(int64_t rows, int64_t block_rows, int64_t dim, int ranks, cudaStream_t stream,
                       cudaStream_t wire);

  int64_t rows = 0, block_rows = 0;
  int ranks = 0;
  int64_t generation = 0;  // Goes up when buffers move.

  DeviceBuffer<std::byte> row_blocks;      // A block a rank, as are partials and gradients.
  DeviceBuffer<std::byte> partial_blocks;  //
  DeviceBuffer<float> gradient_blocks;     //
  DeviceBuffer<int32_t> first_rows;        // [ranks + 1]
  DeviceBuffer<float> inverse_norms;       // [block_rows], of this rank
  DeviceBuffer<TargetLogit> targets;       // [rows], as those below
  DeviceBuffer<RowLoss> losses;
  DeviceBuffer<int32_t> support_vectors;
  DeviceBuffer<uint8_t> kept;
  DeviceBuffer<StepResults> results;  // [1]

  // Page-locked.
  PinnedBuffer<std::byte> host_row_block;  // This rank's.
  PinnedBuffer<float> host_inverse_norms;
  PinnedBuffer<int32_t> host_first_rows;
  PinnedBuffer<std::byte> host_partial_status;  // [DeviceHeader::kStatusBytes]
  PinnedBuffer<StepResults> host_results;
  PinnedBuffer<std::byte> host_row_headers;      // [ranks, DeviceHeader::kBytes]
  PinnedBuffer<std::byte> host_partial_headers;  // The same.
  PinnedBuffer<float> host_gradients;            // This rank's block.
};

}  // namespace shardmax::cuda
