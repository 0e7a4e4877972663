#include "worker/shard_snapshot.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "worker/base/bfloat16.h"
#include "worker/base/status.h"
#include "worker/checkpoint/manifest.h"

namespace shardmax {

int64_t ShardSnapshot::BytesOf(const EngineOptions& options, int64_t neighbours) {
  const int64_t state_bytes = options.optimizer.state_type == StateType::kBfloat16 ? 2 : 4;
  const auto states = static_cast<int64_t>(options.optimizer.StateNames().size());
  const int64_t class_bytes = options.dim * (static_cast<int64_t>(sizeof(float)) + states * state_bytes);
  return options.shard.count * (class_bytes + neighbours * static_cast<int64_t>(sizeof(int32_t)));
}

absl::StatusOr<ShardSnapshot> ShardSnapshot::Take(const Engine& engine, const NeighbourGraph* neighbours) {
  const EngineOptions& options = engine.options();
  ShardSnapshot snapshot(options.shard, options.dim);
  SHARDMAX_RETURN_IF_ERROR(snapshot.Add(engine, "weight", false));
  for (const std::string& name : options.optimizer.StateNames()) {
    SHARDMAX_RETURN_IF_ERROR(snapshot.Add(engine, name, options.optimizer.state_type == StateType::kBfloat16));
  }
  if (neighbours != nullptr) {
    SHARDMAX_ASSIGN_OR_RETURN(snapshot.neighbours_, neighbours->Copy());
  }
  return snapshot;
}

absl::Status ShardSnapshot::Add(const Engine& engine, const std::string& tensor, bool bfloat16) {
  const int64_t size = shard_.count * dim_;
  if (!bfloat16) {
    SHARDMAX_ASSIGN_OR_RETURN(auto values, AlignedBuffer<float>::Allocate(size));
    const int64_t rows_at_a_time = RowsOfChunk(shard_.count, dim_);
    for (int64_t first = 0; first < shard_.count; first += rows_at_a_time) {
      const int64_t count = std::min(rows_at_a_time, shard_.count - first);
      const MatrixView<float> rows = {values.data() + first * dim_, count, dim_};
      SHARDMAX_RETURN_IF_ERROR(engine.ReadRows(tensor, {shard_.first + first, count}, rows));
    }
    tensors_.emplace(tensor, std::move(values));
    return absl::OkStatus();
  }
  SHARDMAX_ASSIGN_OR_RETURN(auto values, AlignedBuffer<uint16_t>::Allocate(size));
  const int64_t rows_at_a_time = RowsOfChunk(shard_.count, dim_);
  std::vector<float> chunk(static_cast<size_t>(rows_at_a_time * dim_));
  for (int64_t first = 0; first < shard_.count; first += rows_at_a_time) {
    const MatrixView<float> rows = {chunk.data(), std::min(rows_at_a_time, shard_.count - first), dim_};
    SHARDMAX_RETURN_IF_ERROR(engine.ReadRows(tensor, {shard_.first + first, rows.rows}, rows));
    // Exact: they are bfloat16.
    std::ranges::transform(rows.flat(), values.data() + first * dim_, RoundToNearestBfloat16);
  }
  tensors_.emplace(tensor, std::move(values));
  return absl::OkStatus();
}

absl::Status ShardSnapshot::ReadRows(const std::string& tensor, Range classes, MatrixView<float> rows) const {
  if (neighbours_.has_value() && tensor == kNeighboursTensor) return neighbours_->ReadBits(classes, rows);
  const auto found = tensors_.find(tensor);
  if (found == tensors_.end()) return InvalidArgument("the snapshot has no tensor '{}'", tensor);
  const int64_t first = (classes.first - shard_.first) * dim_;
  const int64_t count = classes.count * dim_;
  if (const auto* values = std::get_if<AlignedBuffer<float>>(&found->second)) {
    std::copy_n(values->data() + first, count, rows.data);
  } else {
    const uint16_t* from = std::get<AlignedBuffer<uint16_t>>(found->second).data() + first;
    std::transform(from, from + count, rows.data, FromBfloat16);
  }
  return absl::OkStatus();
}

}  // namespace shardmax
