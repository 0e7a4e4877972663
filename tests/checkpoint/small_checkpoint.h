// Checkpoints of a few classes, for tests.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "shardmax/v1/checkpoint.pb.h"
#include "worker/base/shard_range.h"
#include "worker/checkpoint/checkpoint.h"

namespace shardmax {

inline constexpr int32_t kClasses = 7;
inline constexpr int32_t kDim = 3;

// The value that the tests write for a column of a class of a tensor at a step; never 0.
inline float SampleValue(const std::string& tensor, int32_t step, int64_t class_id, int64_t column) {
  return static_cast<float>(step) + (tensor == "weight" ? 0.5f : 0.25f) +
         0.001f * static_cast<float>(class_id * kDim + column);
}

// A manifest of sgd with momentum, without files.
inline shardmax::v1::Manifest SampleManifest(int32_t step) {
  shardmax::v1::Manifest manifest;
  manifest.set_step(step);
  manifest.set_num_classes(kClasses);
  manifest.set_dim(kDim);
  manifest.set_optimizer("sgd");
  manifest.add_tensors("weight");
  manifest.add_tensors("momentum");
  return manifest;
}

inline ReadShardRows SampleRows(int32_t step) {
  return [step](const std::string& name, Range classes, MatrixView<float> out) {
    for (int64_t i = 0; i < out.rows; ++i) {
      for (int64_t d = 0; d < out.cols; ++d) out.row(i)[d] = SampleValue(name, step, classes.first + i, d);
    }
    return absl::OkStatus();
  };
}

inline absl::Status WriteSample(Communicator& comm, const std::string& folder, int32_t step, int keep = 100) {
  return WriteCheckpoint(comm, folder, SampleManifest(step), BalancedPart(kClasses, comm.rank(), comm.size()),
                         SampleRows(step), keep);
}

// OK if `classes` of both tensors hold what SampleRows gave for the step of the reader's manifest.
inline absl::Status CheckSample(const CheckpointReader& reader, Range classes) {
  for (const std::string name : {"weight", "momentum"}) {
    std::vector<float> rows(static_cast<size_t>(classes.count * kDim));
    if (absl::Status status = reader.Read(name, classes, {rows.data(), classes.count, kDim}); !status.ok()) {
      return status;
    }
    for (int64_t i = 0; i < classes.count * kDim; ++i) {
      const int64_t class_id = classes.first + i / kDim;
      const float expected = SampleValue(name, reader.manifest().step(), class_id, i % kDim);
      if (rows[i] != expected) {
        return absl::InternalError(name + " of class " + std::to_string(class_id) + " is " + std::to_string(rows[i]) +
                                   ", not " + std::to_string(expected));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace shardmax
