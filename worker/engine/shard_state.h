// The tensors of a shard in host memory, or in files mapped into it: weights and optimizer state.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/base/aligned_buffer.h"
#include "worker/base/matrix_view.h"
#include "worker/base/shard_range.h"
#include "worker/optim/skipped_steps.h"
#include "worker/optim/state_row.h"
#include "worker/optim/update_rule.h"

namespace shardmax {

// The names and shapes of a shard's tensors, wherever they are stored: "weight" and the optimizer's, each [C_r, D].
class TensorIndex {
 public:
  TensorIndex() = default;
  TensorIndex(Range shard, int64_t dim, const OptimizerParams& optimizer);

  Range shard() const { return shard_; }
  int64_t dim() const { return dim_; }
  const std::vector<std::string>& names() const { return names_; }
  // "tensor 'weight' of 5 classes x 3".
  std::string Describe(const std::string& tensor) const;

  // The place of `tensor` in names(), if `classes` and the shape [rows, cols] are as Engine::ReadRows wants them, else
  // InvalidArgument.
  absl::StatusOr<int> Find(const std::string& tensor, Range classes, int64_t rows, int64_t cols) const;

 private:
  Range shard_;
  int64_t dim_ = 0;
  std::vector<std::string> names_;
};

// "weight" in float32 and the optimizer's tensors as OptimizerParams::state_type says, each [C_r, D], zero at first.
// Shared by the engines of the CPU.
class ShardState {
 public:
  // ResourceExhausted, with the bytes needed, if memory is short.
  // `sampled`: the steps of each class are counted. `storage_folder`: as EngineOptions; errors name the file.
  static absl::StatusOr<ShardState> Allocate(Range shard, int64_t dim, const OptimizerParams& optimizer,
                                             bool sampled = false, const std::string& storage_folder = "");

  // Whether the tensors are in files. Then it pays to fetch what is used soon: the weights, or weights and state, of
  // classes in a row, or of some (ascending), counted from 0 of the shard. Returns at once; rows beyond the last count
  // as none. Thread-safe.
  bool on_disk() const { return on_disk_; }
  void Fetch(Range local, bool with_state) const;
  // Of rows that are read in order, some MiB beyond `local`, once for so many.
  void FetchAfter(Range local, bool with_state) const;
  // How many FetchAfter fetches.
  int64_t rows_ahead() const;
  void Fetch(std::span<const int32_t> local) const;

  MatrixView<float> weight() { return {weight_.data(), index_.shard().count, index_.dim()}; }
  MatrixView<const float> weight() const { return {weight_.data(), index_.shard().count, index_.dim()}; }
  // Row `local_class` of the i-th tensor of OptimizerParams::StateNames(); an empty one where there are fewer.
  StateRow StateOf(int i, int64_t local_class);
  int64_t state_row_bytes() const { return index_.dim() * (type_ == StateType::kBfloat16 ? 2 : 4); }

  // Of a sampled shard: as Engine::BeginAt; what CatchUp needs of `skipped`; and counting a step that `local_class`
  // took part in.
  void BeginAt(int64_t steps_done) {
    std::fill(steps_done_.begin(), steps_done_.end(), static_cast<int32_t>(steps_done));
  }
  void Reach(std::span<const int32_t> local, SkippedSteps& skipped) const;
  void CountStep(int64_t local_class) {
    if (!steps_done_.empty()) ++steps_done_[static_cast<size_t>(local_class)];
  }
  // Counts the steps that `local_class` has missed as done, and returns their map, which the caller then applies to its
  // rows; null if it has missed none. Thread-safe for classes that differ.
  const DecayMap* CatchUp(int64_t local_class, const SkippedSteps& skipped);

  // Writes to every page of the classes `local` of the shard, before they hold anything: the memory of a page is taken
  // near the processor that first does. Does nothing on disk.
  void Touch(Range local);

  // As Engine::ReadRows and Engine::WriteRows; bfloat16 comes and goes as float32, rounded to the nearest, so that what
  // was read is written back as it was. InvalidArgument: no such tensor, or rows outside the shard.
  absl::Status Read(const std::string& tensor, Range classes, MatrixView<float> rows) const;
  // Write is thread-safe for classes that differ.
  absl::Status Write(const std::string& tensor, Range classes, MatrixView<const float> rows);
  // What Write would refuse.
  absl::Status CheckWrite(const std::string& tensor, Range classes, MatrixView<const float> rows) const {
    return index_.Find(tensor, classes, rows.rows, rows.cols).status();
  }

 private:
  // Of the i-th of index_.names().
  void FetchTensor(size_t i, Range local) const;
  void FetchTensorAfter(size_t i, Range local) const;

  TensorIndex index_;
  StateType type_ = StateType::kFloat32;
  bool on_disk_ = false;
  std::vector<int32_t> steps_done_;  // [C_r] of each class; empty if not sampled.
  AlignedBuffer<float> weight_;
  std::vector<AlignedBuffer<float>> float32_;  // The state, in one of the two.
  std::vector<AlignedBuffer<uint16_t>> bfloat16_;
};

}  // namespace shardmax
