// The first collective of a step: every rank's rows, and whether all is well with them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "worker/base/matrix_view.h"
#include "worker/base/shard_range.h"
#include "worker/comm/communicator.h"

namespace shardmax {

// Sets `parts` to the rows of the global batch that each of N ranks brings, in rank order. `rank_rows` [N] says how
// many; empty: BalancedPart(global_rows). InvalidArgument: not N numbers, one below 0, their sum is not `global_rows`,
// or that is not at least 1.
absl::Status PartsOfBatch(int64_t global_rows, std::span<const int64_t> rank_rows, int ranks,
                          std::vector<Range>& parts);

// Where the rows of this rank go, each [rows of this rank].
struct NormalisedRows {
  float* features = nullptr;       // x̂ [rows, D]; a row that is ignored is left as it is
  int32_t* labels = nullptr;       // Set if all rows are right, else left as they are.
  float* inverse_norms = nullptr;  // 1 / |x|; 0 where ignored
};

// Checks rows and labels of this rank and normalises them. InvalidArgument, naming the row, as Exchange below.
absl::Status NormaliseRows(int64_t num_classes, int64_t expected_rows, MatrixView<const float> features,
                           std::span<const int32_t> labels, const NormalisedRows& to);

// Packs rows, labels and a status into one block a rank, gathers the blocks, and unpacks them into the
// dense rows of the global batch. Blocks have the rows of the rank that brings most, so that they are equal in size;
// the padding does not come out again. Features are normalised before they travel.
class GatherBlocks {
 public:
  // Collective; arguments as StepInput, `parts` as of PartsOfBatch. InvalidArgument on every rank, with the rank and
  // row, if any rank's rows are wrong: label outside [-1, num_classes), a value that is not finite, a row of length
  // zero that is not ignored, a number of rows that is not that of its part; or `status` of the lowest rank with an
  // error.
  absl::Status Exchange(Communicator& comm, int64_t num_classes, std::span<const Range> parts,
                        MatrixView<const float> features, std::span<const int32_t> labels, const absl::Status& status);

  MatrixView<const float> features() const {  // x̂ [B, D]; zeros where ignored
    return {features_.data(), static_cast<int64_t>(labels_.size()), dim_};
  }
  std::span<const int32_t> labels() const { return labels_; }  // [B]
  std::span<const float> my_inverse_norms() const {
    return inverse_norms_;
  }                                                           // [rows of this rank]: 1 / |x|; 0 where ignored
  const std::vector<Range>& parts() const { return parts_; }  // [N]
  int64_t block_rows() const { return block_rows_; }          // Of the largest part.

 private:
  absl::Status Unpack(size_t block_bytes);

  std::vector<Range> parts_;
  int64_t dim_ = 0;
  int64_t block_rows_ = 0;
  std::vector<float> inverse_norms_;
  std::vector<std::byte> mine_;
  std::vector<std::byte> all_;
  std::vector<float> features_;
  std::vector<int32_t> labels_;
};

}  // namespace shardmax
