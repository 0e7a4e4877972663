// The class weights that a job starts from (`init.weights`).
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/base/matrix_view.h"
#include "worker/base/shard_range.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/data/safetensors.h"

namespace shardmax {

// Weights [C, D] in a safetensors file or in a checkpoint folder. Movable; one thread at a time.
class InitialWeights {
 public:
  // Copies the rows of `classes` to out [n, D]. The first time that rows of a checkpoint's file are read, its checksum
  // is verified. DataLoss: it differs. InvalidArgument naming file or folder and class: a value that is not finite, or
  // a row without a direction (see CheckDirection).
  absl::Status Read(Range classes, MatrixView<float> out);

 private:
  friend absl::StatusOr<InitialWeights> OpenWeights(const std::string& path, int64_t num_classes, int64_t dim);
  struct Folder {
    CheckpointReader reader;
    std::vector<bool> verified;  // By file.
  };
  explicit InitialWeights(SafetensorsFile file);
  explicit InitialWeights(CheckpointReader reader);
  absl::Status VerifyFilesOf(Range classes);

  std::variant<SafetensorsFile, Folder> source_;
};

// Opens `path`: a safetensors file with `weight` F32 [num_classes, dim] (other tensors are ignored), or a checkpoint
// folder of that C and D. InvalidArgument names the path, the shape that is there and the one that is needed.
absl::StatusOr<InitialWeights> OpenWeights(const std::string& path, int64_t num_classes, int64_t dim);

}  // namespace shardmax
