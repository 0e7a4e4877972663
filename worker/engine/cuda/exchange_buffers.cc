#include "worker/engine/cuda/exchange_buffers.h"

#include <algorithm>

#include "worker/base/cuda_status.h"
#include "worker/base/status.h"
#include "worker/engine/cuda/batch_buffers.h"
#include "worker/engine/cuda/device_plan.h"

namespace shardmax::cuda {

absl::Status ExchangeBuffers::Reserve(int64_t want_rows, int64_t want_block_rows, int64_t dim, int want_ranks,
                                      cudaStream_t stream, cudaStream_t wire) {
  if (want_rows <= rows && want_block_rows <= block_rows && want_ranks <= ranks) return absl::OkStatus();
  SHARDMAX_CUDA(cudaStreamSynchronize, stream);
  SHARDMAX_CUDA(cudaStreamSynchronize, wire);
  want_rows = std::max(want_rows, rows);
  want_block_rows = std::max(want_block_rows, block_rows);
  want_ranks = std::max(want_ranks, ranks);
  rows = block_rows = ranks = 0;  // Until all is there.
  ++generation;
  const BlockSizes block = SizesOfBlocks(want_rows, want_block_rows, dim);
  SHARDMAX_RETURN_IF_ERROR(Renew(row_blocks, want_ranks * block.row_bytes));
  SHARDMAX_RETURN_IF_ERROR(Renew(partial_blocks, want_ranks * block.partial_bytes));
  SHARDMAX_RETURN_IF_ERROR(Renew(gradient_blocks, want_ranks * block.gradient_floats));
  SHARDMAX_RETURN_IF_ERROR(Renew(first_rows, want_ranks + 1));
  SHARDMAX_RETURN_IF_ERROR(Renew(inverse_norms, want_block_rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(targets, want_rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(losses, want_rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(support_vectors, want_rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(kept, want_rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(results, 1));
  SHARDMAX_RETURN_IF_ERROR(Renew(host_row_block, block.row_bytes));
  SHARDMAX_RETURN_IF_ERROR(Renew(host_inverse_norms, want_block_rows));
  SHARDMAX_RETURN_IF_ERROR(Renew(host_first_rows, want_ranks + 1));
  SHARDMAX_RETURN_IF_ERROR(Renew(host_partial_status, static_cast<int64_t>(DeviceHeader::kStatusBytes)));
  SHARDMAX_RETURN_IF_ERROR(Renew(host_results, 1));
  SHARDMAX_RETURN_IF_ERROR(Renew(host_row_headers, want_ranks * static_cast<int64_t>(DeviceHeader::kBytes)));
  SHARDMAX_RETURN_IF_ERROR(Renew(host_partial_headers, want_ranks * static_cast<int64_t>(DeviceHeader::kBytes)));
  SHARDMAX_RETURN_IF_ERROR(Renew(host_gradients, block.gradient_floats));
  rows = want_rows;
  block_rows = want_block_rows;
  ranks = want_ranks;
  return absl::OkStatus();
}

}  // namespace shardmax::cuda
