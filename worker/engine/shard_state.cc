#include "worker/engine/shard_state.h"

#include <algorithm>

#include "worker/base/status.h"

namespace shardmax {
namespace {

template <typename T>
absl::StatusOr<AlignedBuffer<T>> AllocateTensor(const TensorIndex& index, const std::string& name,
                                                const std::string& storage_folder) {
  const Range shard = index.shard();
  const int64_t size = shard.count * index.dim();
  if (!storage_folder.empty()) {
    auto mapped = AlignedBuffer<T>::MapNewFile(
        fmt::format("{}/classes-{:08}-{:08}.{}", storage_folder, shard.first, shard.end() - 1, name), size);
    if (!mapped.ok()) return Annotate(mapped.status(), "train.storage");
    return mapped;
  }
  auto allocated = AlignedBuffer<T>::Allocate(size);
  if (!allocated.ok()) return Annotate(allocated.status(), index.Describe(name));
  return allocated;
}

}  // namespace

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

absl::StatusOr<ShardState> ShardState::Allocate(Range shard, int64_t dim, const OptimizerParams& optimizer,
                                                bool sampled, const std::string& storage_folder) {
  ShardState state;
  state.on_disk_ = !storage_folder.empty();
  state.index_ = TensorIndex(shard, dim, optimizer);
  state.type_ = optimizer.state_type;
  const auto allocate = [&]<typename T>(const std::string& name, AlignedBuffer<T>& tensor) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(tensor, AllocateTensor<T>(state.index_, name, storage_folder));
    return absl::OkStatus();
  };
  SHARDMAX_RETURN_IF_ERROR(allocate("weight", state.weight_));
  for (const std::string& name : optimizer.StateNames()) {
    SHARDMAX_RETURN_IF_ERROR(state.type_ == StateType::kBfloat16 ? allocate(name, state.bfloat16_.emplace_back())
                                                                 : allocate(name, state.float32_.emplace_back()));
  }
  if (sampled) state.steps_done_.resize(static_cast<size_t>(shard.count));
  return state;
}

void ShardState::Reach(std::span<const int32_t> local, SkippedSteps& skipped) const {
  int64_t first = skipped.now();
  for (const int32_t k : local) first = std::min<int64_t>(first, steps_done_[static_cast<size_t>(k)]);
  skipped.Reach(first);
}

const DecayMap* ShardState::CatchUp(int64_t local_class, const SkippedSteps& skipped) {
  int32_t& done = steps_done_[static_cast<size_t>(local_class)];
  if (done == skipped.now()) return nullptr;
  const DecayMap& map = skipped.Since(done);
  done = static_cast<int32_t>(skipped.now());
  return &map;
}

StateRow ShardState::StateOf(int i, int64_t local_class) {
  const auto tensor = static_cast<size_t>(i);
  StateRow row;
  if (tensor < float32_.size()) row.float32 = float32_[tensor].data() + local_class * index_.dim();
  if (tensor < bfloat16_.size()) row.bfloat16 = bfloat16_[tensor].data() + local_class * index_.dim();
  return row;
}

void ShardState::FetchTensor(size_t i, Range local) const {
  const int64_t count = std::min(local.count, index_.shard().count - local.first);
  if (count <= 0) return;
  const auto fetch = [&]<typename T>(const AlignedBuffer<T>& tensor) {
    const int64_t row_bytes = index_.dim() * static_cast<int64_t>(sizeof(T));
    FetchPages(tensor.data() + local.first * index_.dim(), count * row_bytes);
  };
  if (i == 0) {
    fetch(weight_);
  } else if (type_ == StateType::kBfloat16) {
    fetch(bfloat16_[i - 1]);
  } else {
    fetch(float32_[i - 1]);
  }
}

int64_t ShardState::rows_ahead() const {
  constexpr int64_t kBytesAhead = 8 << 20;
  return RowsOfChunk(index_.shard().count, index_.dim(), kBytesAhead);
}

void ShardState::FetchTensorAfter(size_t i, Range local) const {
  const int64_t window = rows_ahead();
  if (local.first == 0) FetchTensor(i, {0, window});
  if (local.first == 0 || local.first / window != local.end() / window) {
    FetchTensor(i, {(local.end() / window + 1) * window, window});
  }
}

void ShardState::FetchAfter(Range local, bool with_state) const {
  for (size_t i = 0; i < (with_state ? index_.names().size() : 1); ++i) FetchTensorAfter(i, local);
}

void ShardState::Fetch(Range local, bool with_state) const {
  for (size_t i = 0; i < (with_state ? index_.names().size() : 1); ++i) FetchTensor(i, local);
}

void ShardState::Fetch(std::span<const int32_t> local) const {
  // Rows that lie so near to each other are one request: the disk reads what is between as fast as it would skip it.
  constexpr int64_t kGapBytes = 16 << 10;
  const int64_t gap = kGapBytes / (index_.dim() * static_cast<int64_t>(sizeof(float))) + 1;
  for (size_t i = 0; i < local.size();) {
    const size_t first = i++;
    while (i < local.size() && local[i] - local[i - 1] <= gap) ++i;
    Fetch({local[first], local[i - 1] - local[first] + 1}, true);
  }
}

void ShardState::Touch(Range local) {
  if (on_disk_) return;
  constexpr int64_t kPageBytes = 4096;
  const auto touch = [&]<typename T>(AlignedBuffer<T>& tensor) {
    constexpr int64_t kPage = kPageBytes / static_cast<int64_t>(sizeof(T));
    for (int64_t i = local.first * index_.dim(); i < local.end() * index_.dim(); i += kPage) tensor.data()[i] = 0;
  };
  touch(weight_);
  for (AlignedBuffer<float>& tensor : float32_) touch(tensor);
  for (AlignedBuffer<uint16_t>& tensor : bfloat16_) touch(tensor);
}

absl::Status ShardState::Read(const std::string& tensor, Range classes, MatrixView<float> rows) const {
  SHARDMAX_ASSIGN_OR_RETURN(const int i, index_.Find(tensor, classes, rows.rows, rows.cols));
  if (on_disk_) FetchTensorAfter(static_cast<size_t>(i), {classes.first - index_.shard().first, classes.count});
  const int64_t first = (classes.first - index_.shard().first) * rows.cols;
  const int64_t count = classes.count * rows.cols;
  if (i > 0 && type_ == StateType::kBfloat16) {
    const uint16_t* from = bfloat16_[static_cast<size_t>(i - 1)].data() + first;
    std::transform(from, from + count, rows.data, FromBfloat16);
  } else {
    const AlignedBuffer<float>& from = i == 0 ? weight_ : float32_[static_cast<size_t>(i - 1)];
    std::copy_n(from.data() + first, count, rows.data);
  }
  return absl::OkStatus();
}

absl::Status ShardState::Write(const std::string& tensor, Range classes, MatrixView<const float> rows) {
  SHARDMAX_ASSIGN_OR_RETURN(const int i, index_.Find(tensor, classes, rows.rows, rows.cols));
  const int64_t first = (classes.first - index_.shard().first) * rows.cols;
  const int64_t count = classes.count * rows.cols;
  if (i > 0 && type_ == StateType::kBfloat16) {
    uint16_t* to = bfloat16_[static_cast<size_t>(i - 1)].data() + first;
    std::transform(rows.data, rows.data + count, to, RoundToNearestBfloat16);
  } else {
    AlignedBuffer<float>& to = i == 0 ? weight_ : float32_[static_cast<size_t>(i - 1)];
    std::copy_n(rows.data, count, to.data() + first);
  }
  return absl::OkStatus();
}

}  // namespace shardmax
