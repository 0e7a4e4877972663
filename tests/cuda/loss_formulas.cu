// Compiles every formula that engines share as device code: the CUDA engine will call them from its kernels. A formula
// that only a CPU can run breaks this build. Nothing here is run.

#include <cstdint>

#include "worker/loss/class_logit.h"
#include "worker/loss/normalizer.h"
#include "worker/loss/target_logit.h"
#include "worker/optim/update_rule.h"

namespace shardmax {

// One thread a row: thresholds [B], merged partials of `ranks` ranks [ranks, B], losses [B].
__global__ void RowKernel(LossParams loss, int rows, int ranks, const float* label_cosines,
                          const ShardPartial* partials, float* thresholds, RowLoss* losses) {
  const int b = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (b >= rows) return;
  const TargetLogit target = EvaluateTargetLogit(loss, label_cosines[b]);
  thresholds[b] = static_cast<float>(target.value);
  ShardPartial others = partials[b];
  for (int rank = 1; rank < ranks; ++rank) others = Merge(others, partials[rank * rows + b]);
  losses[b] = EvaluateRowLoss(others, loss.scale * target.value, loss.gamma);
}

// One thread an element: gradients of cosines [n] of one row.
__global__ void ClassKernel(ClassLogitScale scale, ShiftedLogit<float> row, float row_scale, int n,
                            const float* cosines, float* logits, float* gradients) {
  const int k = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (k >= n) return;
  const ScalarOps<float> ops;
  logits[k] = Logit(ops, scale, row.threshold, cosines[k]);
  gradients[k] = ClassCosineGradient(ops, row, row_scale, cosines[k]);
}

// One thread an element: an optimizer step on weights [n].
__global__ void UpdateKernel(UpdateRule rule, int n, const float* gradients, float* weights, float* first,
                             float* second) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  using Ops = ScalarOps<float>;
  const Ops ops;
  if (rule.params.kind == OptimizerKind::kAdamW) {
    weights[i] = AdamWUpdate(ops, AdamWConstants<Ops>(ops, rule), weights[i], gradients[i], first[i], second[i]);
  } else if (rule.params.momentum == 0) {
    weights[i] = SgdUpdate(ops, SgdConstants<Ops>(ops, rule), weights[i], gradients[i]);
  } else if (rule.params.nesterov) {
    weights[i] = SgdMomentumUpdate<true>(ops, SgdConstants<Ops>(ops, rule), weights[i], gradients[i], first[i]);
  } else {
    weights[i] = SgdMomentumUpdate<false>(ops, SgdConstants<Ops>(ops, rule), weights[i], gradients[i], first[i]);
  }
}

}  // namespace shardmax
