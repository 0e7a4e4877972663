// The kernels of the CUDA engine, as functions that enqueue them.
//
// Rows and tiles are in device memory. Strides are in elements and multiples of 8, buffers are aligned to 16 bytes, and
// rows are padded with zeros up to their stride, so that kernels load and store 16 bytes at a time. `count` classes of
// a tile are valid; what lies between count and the stride of the tile is anything. Every function returns what the
// launch returned, and none waits.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "worker/engine/cuda/limits.h"
#include "worker/engine/cuda/step_state.h"
#include "worker/loss/class_logit.h"
#include "worker/loss/normalizer.h"
#include "worker/optim/update_rule.h"

namespace shardmax::cuda {

// Classes of the shard, with the products of a tile.
struct Tile {
  float* products = nullptr;             // x̂ · w [rows, stride]
  int64_t stride = 0;                    // Multiple of 8.
  int rows = 0;                          // B
  int count = 0;                         // Classes of the tile.
  int first = 0;                         // Of them, in the shard; a multiple of 8.
  int first_global_class = 0;            // The global id of class `first`.
  const float* inverse_norms = nullptr;  // [C_r], padded to a multiple of 8
  const int32_t* labels = nullptr;       // [rows], global
};

// Inverse norms [count] of `weights` [count, stride], and a copy of the weights in bfloat16 unless it is null.
struct NormArgs {
  const float* weights;
  int64_t stride;
  int count;
  float* inverse_norms;
  __nv_bfloat16* bfloat16_weights;  // [count, stride]
};
cudaError_t LaunchNorms(const NormArgs& args, cudaStream_t stream);

// to [size] = from [size] in bfloat16; size is a multiple of 8.
cudaError_t LaunchToBfloat16(const float* from, __nv_bfloat16* to, int64_t size, cudaStream_t stream);

// cosines [rows]: those of the labels that are in the shard, summed in float64; 0 for the others.
struct LabelArgs {
  const float* features;  // [rows, stride]
  const float* weights;   // [classes, stride]
  int64_t stride;
  int rows;
  int first_class;  // Of the shard, a global id.
  int classes;
  const int32_t* labels;
  float* cosines;
};
cudaError_t LaunchLabelCosines(const LabelArgs& args, cudaStream_t stream);

// Adds the tile to partials [slots, rows]; its first tile, which is the largest, sets them. step->bad_class becomes the
// lowest class of the shard whose inverse norm is NaN, if any is.
struct ScoreArgs {
  Tile tile;
  StepState* step;
  const float* thresholds;  // [rows]
  ShardPartial* partials;
  bool is_first;
};
cudaError_t LaunchScore(const ScoreArgs& args, cudaStream_t stream);

// merged [rows] = the union of partials [slots, rows], in the order of the slots. Unless it is null, *bad_global_class
// becomes the global id of step->bad_class, or -1.
struct MergeArgs {
  const ShardPartial* partials;
  int slots;
  int rows;
  ShardPartial* merged;
  const StepState* step;
  int first_class;  // Of the shard, a global id.
  int32_t* bad_global_class;
};
cudaError_t LaunchMerge(const MergeArgs& args, cudaStream_t stream);

// dloss/dcos / ‖w‖ of every element of the tile: in its place, or [rows, stride] in bfloat16 if that is not null. What
// lies past `count` becomes 0.
struct GradientArgs {
  Tile tile;
  const StepState* step;
  const float* thresholds;  // [rows], as those below: RowGradients of engine.h
  const float* shifts;
  const float* row_scales;
  const float* label_gradients;
  __nv_bfloat16* bfloat16_gradients;
};
cudaError_t LaunchGradients(const GradientArgs& args, cudaStream_t stream);

// Takes a step with gradients [count, stride] of dloss/dŵ / ‖w‖: the Jacobian of the norm, the optimizer, and the next
// step's inverse norms and bfloat16 copy (unless null). Nothing changes unless step->go.
struct UpdateArgs {
  const float* gradients;
  float* weights;
  float* first_state;  // The optimizer's tensors, as OptimizerParams::StateNames() has them.
  float* second_state;
  int64_t stride;
  int count;
  float* inverse_norms;
  __nv_bfloat16* bfloat16_weights;
  const StepState* step;
};
// `params` are those of step->rule.
cudaError_t LaunchUpdate(const UpdateArgs& args, const OptimizerParams& params, cudaStream_t stream);

struct NearestArgs {
  Tile tile;
  NearestClass* nearest;  // [rows]
  bool is_first;
  StepState* step;  // As ScoreArgs.
};
cudaError_t LaunchNearest(const NearestArgs& args, cudaStream_t stream);

}  // namespace shardmax::cuda
