#include "worker/head/gather_block.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/comm/verdict.h"
#include "worker/engine/norm.h"

namespace shardmax {
namespace {

// Begins a block; then features [block_rows, D] float32 and labels [block_rows] int32.
struct Header {
  StepVerdict verdict;
  uint32_t requests = 0;
};

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

absl::Status GatherBlocks::Exchange(Communicator& comm, int64_t num_classes, int64_t global_rows,
                                    MatrixView<const float> features, std::span<const int32_t> labels,
                                    const absl::Status& status, uint32_t requests) {
  dim_ = features.cols;
  block_rows_ = (global_rows + comm.size() - 1) / comm.size();
  const size_t block_bytes = sizeof(Header) + block_rows_ * (dim_ * sizeof(float) + sizeof(int32_t));
  mine_.assign(block_bytes, std::byte{0});
  all_.resize(block_bytes * comm.size());

  absl::Status mine = status;
  if (mine.ok()) {
    const int64_t rows = BalancedPart(global_rows, comm.rank(), comm.size()).count;
    inverse_norms_.resize(static_cast<size_t>(rows));
    auto* to = reinterpret_cast<float*>(mine_.data() + sizeof(Header));
    mine = NormaliseRows(num_classes, rows, features, labels,
                         {.features = to,
                          .labels = reinterpret_cast<int32_t*>(to + block_rows_ * dim_),
                          .inverse_norms = inverse_norms_.data()});
  }
  const Header header = {.verdict = StepVerdict::Of(mine), .requests = requests};
  std::memcpy(mine_.data(), &header, sizeof(header));
  SHARDMAX_RETURN_IF_ERROR(comm.AllGather(mine_, all_));
  return Unpack(comm.size(), global_rows, block_bytes);
}

absl::Status GatherBlocks::Unpack(int world_size, int64_t global_rows, size_t block_bytes) {
  features_.resize(static_cast<size_t>(global_rows * dim_));
  labels_.resize(static_cast<size_t>(global_rows));
  requests_ = 0;
  for (int rank = 0; rank < world_size; ++rank) {
    const std::byte* block = all_.data() + rank * block_bytes;
    Header header;
    std::memcpy(&header, block, sizeof(header));
    SHARDMAX_RETURN_IF_ERROR(header.verdict.From(rank));
    requests_ |= header.requests;
    const Range rows = BalancedPart(global_rows, rank, world_size);
    const auto* features = reinterpret_cast<const float*>(block + sizeof(Header));
    std::copy_n(features, rows.count * dim_, features_.begin() + rows.first * dim_);
    std::copy_n(reinterpret_cast<const int32_t*>(features + block_rows_ * dim_), rows.count,
                labels_.begin() + rows.first);
  }
  return absl::OkStatus();
}

}  // namespace shardmax
