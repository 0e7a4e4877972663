// What one step hands from kernel to kernel beside its rows. Free of CUDA and of Abseil.
#pragma once

#include <cstdint>
#include <limits>

#include "worker/loss/class_logit.h"
#include "worker/loss/loss_params.h"
#include "worker/loss/normalizer.h"
#include "worker/loss/target_logit.h"
#include "worker/optim/update_rule.h"

namespace shardmax::cuda {

inline constexpr int kNoBadClass = std::numeric_limits<int>::max();

// In device memory, set by the host before a step: so the arguments of kernels are the same in every step of a shape.
struct StepState {
  LossParams loss;
  ClassLogitScale scale = {};
  UpdateRule rule;
  int bad_class = kNoBadClass;  // The lowest class of the shard whose weights are not finite.
  int go = 1;                   // 0: some rank's rows or scores are not as they should be; no weight may change.
};

// What a step found out about its rows, for the host.
struct StepResults {
  double loss = 0;
  double mean_label_cosine = 0;
  int64_t support_vectors = 0;
  int32_t counted_rows = 0;
  int32_t go = 0;
};

// Bytes of device memory that an exchange between devices takes for each row of the global batch: targets, losses,
// support vectors, and which are kept.
inline constexpr int64_t kExchangeRowBytes = sizeof(TargetLogit) + sizeof(RowLoss) + sizeof(int32_t) + sizeof(uint8_t);

}  // namespace shardmax::cuda
