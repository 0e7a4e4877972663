#include "worker/engine/shard_state.h"

#include <algorithm>

#include "worker/base/status.h"

namespace shardmax {

TensorIndex::TensorIndex(Range shard, int64_t dim, const OptimizerParams& optimizer)
    : shard_(shard), dim_(dim), names_({"weight"}) {
  for (const std::string& name : optimizer.StateNames()) names_.push_back(name);
}

std::string TensorIndex::Describe(const std::string& tensor) const {
  return fmt::format("tensor '{}' of {} classes x {}", tensor, shard_.count, dim_);
}

absl::StatusOr<int> TensorIndex::Find(const std::string& tensor, Range classes, int64_t rows, int64_t cols) const {
  const auto found = std::find(names_.begin(), names_.end(), tensor);
  if (found == names_.end()) return InvalidArgument("the shard has no tensor '{}'", tensor);
  if (classes.first < shard_.first || classes.end() > shard_.end() || classes.count < 0) {
    return InvalidArgument("classes [{}, {}) are not in the shard [{}, {})", classes.first, classes.end(), shard_.first,
                           shard_.end());
  }
  if (rows != classes.count || cols != dim_) {
    return InvalidArgument("rows are [{}, {}], but {} classes of width {} were asked for", rows, cols, classes.count,
                           dim_);
  }
  return static_cast<int>(found - names_.begin());
}

absl::StatusOr<ShardState> ShardState::Allocate(Range shard, int64_t dim, const OptimizerParams& optimizer) {
  ShardState state;
  state.index_ = TensorIndex(shard, dim, optimizer);
  for (const std::string& name : state.index_.names()) {
    auto tensor = AlignedBuffer<float>::Allocate(shard.count * dim);
    if (!tensor.ok()) return Annotate(tensor.status(), state.index_.Describe(name));
    state.tensors_.push_back(std::move(tensor).value());
  }
  return state;
}

void ShardState::Touch(Range local) {
  constexpr int64_t kPageFloats = 1024;
  for (AlignedBuffer<float>& tensor : tensors_) {
    for (int64_t i = local.first * index_.dim(); i < local.end() * index_.dim(); i += kPageFloats) tensor.data()[i] = 0;
  }
}

absl::Status ShardState::Read(const std::string& tensor, Range classes, MatrixView<float> rows) const {
  SHARDMAX_ASSIGN_OR_RETURN(const int i, index_.Find(tensor, classes, rows.rows, rows.cols));
  const float* first = tensors_[static_cast<size_t>(i)].data() + (classes.first - index_.shard().first) * rows.cols;
  std::copy_n(first, classes.count * rows.cols, rows.data);
  return absl::OkStatus();
}

absl::Status ShardState::Write(const std::string& tensor, Range classes, MatrixView<const float> rows) {
  SHARDMAX_ASSIGN_OR_RETURN(const int i, index_.Find(tensor, classes, rows.rows, rows.cols));
  float* first = tensors_[static_cast<size_t>(i)].data() + (classes.first - index_.shard().first) * rows.cols;
  std::copy_n(rows.data, classes.count * rows.cols, first);
  return absl::OkStatus();
}

}  // namespace shardmax
