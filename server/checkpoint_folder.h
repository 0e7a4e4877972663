// The checkpoints of a job as its folder shows them. Reads the file system; any thread calls.
#pragma once

#include "absl/status/statusor.h"
#include "shardmax/v1/control.pb.h"
#include "worker/checkpoint/checkpoint.h"

namespace shardmax {

// Complete ones, newest first. What is damaged or being removed is left out.
absl::StatusOr<shardmax::v1::ListCheckpointsResponse> ListJobCheckpoints(const shardmax::v1::Job& job);

// Of `step`, or the newest for 0. NotFound if there is none; what is wrong with the folder if it is damaged.
absl::StatusOr<shardmax::v1::CheckpointInfo> GetJobCheckpoint(const shardmax::v1::Job& job, int32_t step);

// The same checkpoint, opened.
absl::StatusOr<CheckpointReader> OpenJobCheckpoint(const shardmax::v1::Job& job, int32_t step);

}  // namespace shardmax
