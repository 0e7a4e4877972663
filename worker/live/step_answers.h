// What trainers are told of a step.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "shardmax/v1/checkpoint.pb.h"
#include "worker/base/matrix_view.h"
#include "worker/live/desk.h"
#include "worker/live/trainer_step.h"

namespace shardmax {

struct StepSummary {
  const shardmax::v1::StepMetrics& metrics;
  int64_t global_rows = 0;
  int64_t counted_rows = 0;
  int64_t checkpoint_step = 0;
  int64_t snapshot_step = 0;
  bool last = false;
};

// An answer for each of `steps`, whose rows stand one after another in `gradients` [rows of this rank, D].
std::vector<SharedMessage> MakeAnswers(const StepSummary& summary,
                                       const std::vector<std::shared_ptr<const TrainerStep>>& steps,
                                       MatrixView<const float> gradients);

}  // namespace shardmax
