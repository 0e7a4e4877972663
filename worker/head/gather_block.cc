#include "worker/head/gather_block.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/status/statusor.h"
#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/comm/verdict.h"
#include "worker/engine/norm.h"

namespace shardmax {
namespace {

// 1 / |row|, or what is wrong with the row.
absl::StatusOr<double> InverseLength(std::span<const float> row, int64_t row_index) {
  if (!std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); })) {
    return InvalidArgument("features row {}: a value is not finite", row_index);
  }
  const double inverse = InverseNorm(row);
  if (inverse == 0) return InvalidArgument("features row {}: its length is zero, so it has no direction", row_index);
  if (std::isnan(inverse)) return InvalidArgument("features row {}: its length is not a finite float32", row_index);
  return inverse;
}

}  // namespace

absl::Status PartsOfBatch(int64_t global_rows, std::span<const int64_t> rank_rows, int ranks,
                          std::vector<Range>& parts) {
  if (global_rows < 1) return InvalidArgument("the batch has {} rows: it must have at least one", global_rows);
  parts.clear();
  if (rank_rows.empty()) {
    for (int rank = 0; rank < ranks; ++rank) parts.push_back(BalancedPart(global_rows, rank, ranks));
    return absl::OkStatus();
  }
  if (rank_rows.size() != static_cast<size_t>(ranks)) {
    return InvalidArgument("the rows of {} ranks are given, but there are {} ranks", rank_rows.size(), ranks);
  }
  int64_t first = 0;
  for (const int64_t rows : rank_rows) {
    if (rows < 0) return InvalidArgument("rank {} brings {} rows: allowed is 0 or more", parts.size(), rows);
    parts.push_back({.first = first, .count = rows});
    first += rows;
  }
  if (first == global_rows) return absl::OkStatus();
  return InvalidArgument("the ranks bring {} rows together, but the batch has {}", first, global_rows);
}

absl::Status NormaliseRows(int64_t num_classes, int64_t expected_rows, MatrixView<const float> features,
                           std::span<const int32_t> labels, const NormalisedRows& to) {
  if (features.rows != expected_rows || static_cast<int64_t>(labels.size()) != expected_rows) {
    return InvalidArgument("this rank brings {} rows and {} labels, but its part of the batch is {} rows",
                           features.rows, labels.size(), expected_rows);
  }
  for (int64_t i = 0; i < expected_rows; ++i) {
    to.inverse_norms[i] = 0;
    if (labels[i] == -1) continue;
    if (labels[i] < -1 || labels[i] >= num_classes) {
      return InvalidArgument("labels row {} is {}: allowed is -1 (ignored) or a class in [0, {})", i, labels[i],
                             num_classes);
    }
    SHARDMAX_ASSIGN_OR_RETURN(const double inverse, InverseLength(features.row(i), i));
    to.inverse_norms[i] = static_cast<float>(inverse);
    std::transform(features.row(i).begin(), features.row(i).end(), to.features + i * features.cols,
                   [&](float x) { return static_cast<float>(x * inverse); });
  }
  std::copy(labels.begin(), labels.end(), to.labels);
  return absl::OkStatus();
}

absl::Status GatherBlocks::Exchange(Communicator& comm, int64_t num_classes, std::span<const Range> parts,
                                    MatrixView<const float> features, std::span<const int32_t> labels,
                                    const absl::Status& status) {
  parts_.assign(parts.begin(), parts.end());
  dim_ = features.cols;
  block_rows_ = 0;
  for (const Range& part : parts_) block_rows_ = std::max(block_rows_, part.count);
  // The verdict, features [block_rows, D] float32, labels [block_rows] int32.
  const size_t block_bytes = sizeof(StepVerdict) + block_rows_ * (dim_ * sizeof(float) + sizeof(int32_t));
  mine_.assign(block_bytes, std::byte{0});
  all_.resize(block_bytes * comm.size());

  absl::Status mine = status;
  if (mine.ok()) {
    const int64_t rows = parts_[static_cast<size_t>(comm.rank())].count;
    inverse_norms_.resize(static_cast<size_t>(rows));
    auto* to = reinterpret_cast<float*>(mine_.data() + sizeof(StepVerdict));
    mine = NormaliseRows(num_classes, rows, features, labels,
                         {.features = to,
                          .labels = reinterpret_cast<int32_t*>(to + block_rows_ * dim_),
                          .inverse_norms = inverse_norms_.data()});
  }
  const StepVerdict verdict = StepVerdict::Of(mine);
  std::memcpy(mine_.data(), &verdict, sizeof(verdict));
  SHARDMAX_RETURN_IF_ERROR(comm.AllGather(mine_, all_));
  return Unpack(block_bytes);
}

absl::Status GatherBlocks::Unpack(size_t block_bytes) {
  const int64_t global_rows = parts_.back().end();
  features_.resize(static_cast<size_t>(global_rows * dim_));
  labels_.resize(static_cast<size_t>(global_rows));
  for (size_t rank = 0; rank < parts_.size(); ++rank) {
    const std::byte* block = all_.data() + rank * block_bytes;
    StepVerdict verdict;
    std::memcpy(&verdict, block, sizeof(verdict));
    SHARDMAX_RETURN_IF_ERROR(verdict.From(static_cast<int>(rank)));
    const Range& rows = parts_[rank];
    const auto* features = reinterpret_cast<const float*>(block + sizeof(StepVerdict));
    std::copy_n(features, rows.count * dim_, features_.begin() + rows.first * dim_);
    std::copy_n(reinterpret_cast<const int32_t*>(features + block_rows_ * dim_), rows.count,
                labels_.begin() + rows.first);
  }
  return absl::OkStatus();
}

}  // namespace shardmax
