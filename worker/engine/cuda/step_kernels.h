// Kernels between the collectives of a step: what the head does with rows on the host, for an exchange between devices.
//
// As kernels.h: functions that enqueue, pointers to device memory, no waits. Blocks of ranks lie one after another and
// begin with a DeviceHeader (worker/engine/device_header.h). Whatever is wrong sets step->go to 0.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "worker/engine/cuda/step_state.h"

namespace shardmax::cuda {

// Which rows of the global batch are whose: rank r has those from first_rows[r] to first_rows[r + 1].
struct RowParts {
  const int32_t* first_rows;  // [ranks + 1]
  int ranks;
  int block_rows;  // Of the largest part: rows of a block.
};

// Takes the blocks of rows apart: header, features [block_rows, dim], labels [block_rows]. Features become [rows,
// stride] with zeros past dim, and the same in bfloat16 unless that is null.
struct UnpackArgs {
  const std::byte* blocks;
  int64_t block_bytes;
  RowParts parts;
  int rows;
  int64_t dim;
  int64_t stride;
  float* features;
  __nv_bfloat16* bfloat16_features;
  int32_t* labels;  // [rows]
  StepState* step;
};
cudaError_t LaunchUnpack(const UnpackArgs& args, cudaStream_t stream);

// Of each row, from its label cosine: target logit and threshold; +inf where it is ignored.
struct TargetArgs {
  const int32_t* labels;
  const float* cosines;
  int rows;
  TargetLogit* targets;  // [rows]
  float* thresholds;     // [rows]
  StepState* step;
};
cudaError_t LaunchTargets(const TargetArgs& args, cudaStream_t stream);

// Merges the partials of the blocks, in the order of ranks, and works out the loss of each row.
struct LossArgs {
  const std::byte* blocks;  // header, partials [rows]
  int64_t block_bytes;
  int ranks;
  int rows;
  const int32_t* labels;
  const TargetLogit* targets;
  RowLoss* losses;           // [rows]; zeros where ignored
  int32_t* support_vectors;  // [rows]
  StepState* step;
};
cudaError_t LaunchLosses(const LossArgs& args, cudaStream_t stream);

// Which rows hard mining keeps: as SetHardestRows of worker/loss/hard_mining.h.
struct KeepArgs {
  const int32_t* labels;
  const RowLoss* losses;
  int rows;
  const StepState* step;
  uint8_t* kept;  // [rows]
};
cudaError_t LaunchKeep(const KeepArgs& args, cudaStream_t stream);

// Sums over the rows, and from them the gradients of each. Sums are of a fixed order: the same bits on every rank.
struct FinishArgs {
  int rows;
  const int32_t* labels;
  const float* cosines;
  const TargetLogit* targets;
  const RowLoss* losses;
  const int32_t* support_vectors;
  const uint8_t* kept;
  const StepState* step;
  float* shifts;  // [rows], as those below: RowGradients of worker/engine/engine.h
  float* row_scales;
  float* label_gradients;
  StepResults* results;
};
cudaError_t LaunchFinish(const FinishArgs& args, cudaStream_t stream);

// gradients [rows, stride] into blocks [block_rows, dim] of a rank each, padded with zeros; `mark` ends each block.
struct PackArgs {
  const float* gradients;
  int64_t stride;
  int64_t dim;
  RowParts parts;
  float mark;
  float* blocks;
};
cudaError_t LaunchPack(const PackArgs& args, cudaStream_t stream);

// gradients [count, dim] of dloss/dx̂ become those of dloss/dx = (g - (g · x̂) x̂) / ‖x‖. count >= 1.
struct JacobianArgs {
  float* gradients;
  int64_t dim;
  const float* features;  // x̂ [count, stride]
  int64_t stride;
  const float* inverse_norms;  // [count]
  int count;
};
cudaError_t LaunchJacobian(const JacobianArgs& args, cudaStream_t stream);

}  // namespace shardmax::cuda
