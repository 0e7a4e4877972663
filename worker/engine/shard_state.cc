#include "worker/engine/shard_state.h"

#include <algorithm>

#include "worker/base/status.h"

namespace shardmax {

absl::StatusOr<ShardState> ShardState::Allocate(Range shard, int64_t dim, const OptimizerParams& optimizer) {
  ShardState state;
  state.shard_ = shard;
  state.dim_ = dim;
  state.names_ = {"weight"};
  for (const std::string& name : optimizer.StateNames()) state.names_.push_back(name);
  for (const std::string& name : state.names_) {
    auto tensor = AlignedBuffer<float>::Allocate(shard.count * dim);
    if (!tensor.ok()) {
      return Annotate(tensor.status(), fmt::format("tensor '{}' of {} classes x {}", name, shard.count, dim));
    }
    state.tensors_.push_back(std::move(tensor).value());
  }
  return state;
}

absl::StatusOr<int> ShardState::Find(const std::string& tensor, Range classes, int64_t rows, int64_t cols) const {
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

absl::Status ShardState::Read(const std::string& tensor, Range classes, MatrixView<float> rows) const {
  SHARDMAX_ASSIGN_OR_RETURN(const int i, Find(tensor, classes, rows.rows, rows.cols));
  const float* first = tensors_[static_cast<size_t>(i)].data() + (classes.first - shard_.first) * dim_;
  std::copy_n(first, classes.count * dim_, rows.data);
  return absl::OkStatus();
}

absl::Status ShardState::Write(const std::string& tensor, Range classes, MatrixView<const float> rows) {
  SHARDMAX_ASSIGN_OR_RETURN(const int i, Find(tensor, classes, rows.rows, rows.cols));
  float* first = tensors_[static_cast<size_t>(i)].data() + (classes.first - shard_.first) * dim_;
  std::copy_n(rows.data, classes.count * dim_, first);
  return absl::OkStatus();
}

}  // namespace shardmax
