#include "worker/head/batch_rows.h"

#include <utility>

#include "worker/base/status.h"

namespace shardmax {

absl::Status BatchRows::GatherInto(const StepInput& input, const absl::Status& before, GatherBlocks& blocks) {
  // Equal on every rank, so an error is too.
  SHARDMAX_RETURN_IF_ERROR(PartsOfBatch(input.global_rows, input.rank_rows, comm_.size(), parts_));
  absl::Status status = before;
  status.Update(input.status);
  if (status.ok() && input.features.cols != dim_) {
    status = InvalidArgument("features have width {}, the head has dim {}", input.features.cols, dim_);
  }
  MatrixView<const float> features = input.features;
  features.cols = dim_;  // Equal blocks even where the width is wrong; then no row is read.
  return blocks.Exchange(comm_, num_classes_, parts_, features, input.labels, status);
}

void BatchRows::GatherNext(NextRows next) {
  next_status_ = GatherInto(next(), absl::OkStatus(), next_);
  has_next_ = true;
}

absl::Status BatchRows::Advance() {
  std::swap(now_, next_);
  has_next_ = false;
  return std::exchange(next_status_, absl::OkStatus());
}

}  // namespace shardmax
