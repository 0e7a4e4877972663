// Labelled features in memory-mapped .npy files, and the order in which a job visits them.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "worker/base/matrix_view.h"
#include "worker/base/shard_range.h"
#include "worker/data/npy.h"

namespace shardmax {

// n rows of features [n, D] (float32 or float16) and their labels [n] (int32 or int64). Immutable; any thread reads.
class LabelledRows {
 public:
  // Maps both files and checks what can be checked up front: dtype, order, shape, width = dim, equal row counts, at
  // least one row, every label in [-1, num_classes). `field` ("train.dataset") begins every message, with the file
  // and row that is wrong. InvalidArgument, or the system's error for a file that cannot be read.
  static absl::StatusOr<LabelledRows> Open(const std::string& field, const std::string& features_path,
                                           const std::string& labels_path, int64_t dim, int64_t num_classes);

  int64_t rows() const { return features_.rows(); }
  int64_t dim() const { return features_.cols(); }

  // Label of `row`: a global class id or -1.
  int32_t label(int64_t row) const;

  // Copies `rows[i]` to features row i as float32, and its label to labels[i]. Shapes: features [m, D], labels [m],
  // m = rows.size(); every row in [0, rows()). A row with label -1 becomes zeros, whatever the file holds: it is not
  // checked, and no NaN of it enters any arithmetic. InvalidArgument naming file and row, where the label is not -1: a
  // value that is not finite, or a row whose length is zero or is not a normal float32.
  absl::Status Read(std::span<const int64_t> rows, MatrixView<float> features, std::span<int32_t> labels) const;

  // The errors that Read would give for the rows of `range`, without keeping them.
  absl::Status Check(Range range) const;

  // What the two files hold, in words that differ when they do: rows, dtype and a checksum, of all labels and of some
  // hundred rows of features. Each begins with its field and path, as messages do.
  struct Digest {
    std::string features_file, features;
    std::string labels_file, labels;
  };
  Digest MakeDigest() const;

 private:
  LabelledRows(std::string field, NpyFile features, NpyFile labels);

  std::string field_;
  NpyFile features_;
  NpyFile labels_;
};

// The batches of a dataset: which rows step k trains on. A pure function of its arguments, so it does not depend on
// the number of ranks, and a resumed job goes on where it was.
class BatchPlan {
 public:
  // Requires rows >= 1, batch_size >= 1. With shuffle each epoch visits the rows in the order of a pseudo-random
  // permutation of (seed, epoch), evaluated in O(1) per row and without memory.
  BatchPlan(int64_t rows, int64_t batch_size, bool shuffle, uint32_t seed);

  int64_t steps_per_epoch() const;  // The last batch of an epoch holds what is left.
  int64_t epoch_of(int64_t step) const { return step / steps_per_epoch(); }
  // Rows in the batch of `step`, 1 to batch_size.
  int64_t batch_rows(int64_t step) const;
  // The dataset row at `position` in [0, batch_rows(step)) of the batch of `step`.
  int64_t row_at(int64_t step, int64_t position) const;

 private:
  int64_t rows_;
  int64_t batch_size_;
  bool shuffle_;
  uint32_t seed_;
};

}  // namespace shardmax
