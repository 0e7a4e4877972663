// One safetensors file with the class weights of a checkpoint, made in pieces and never held whole.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "shardmax/v1/control.pb.h"
#include "worker/checkpoint/checkpoint.h"

namespace shardmax {

// Reads the file system. Not thread-safe.
class ExportFile {
 public:
  // Opens the checkpoint of `step` (0: the newest) and verifies it, which reads all of it. DataLoss naming the file if
  // a checksum differs; otherwise errors as of OpenJobCheckpoint.
  static absl::StatusOr<ExportFile> Open(const shardmax::v1::Job& job, int32_t step);

  // The next chunk; without data at the end.
  absl::StatusOr<shardmax::v1::ExportChunk> Next();

 private:
  explicit ExportFile(CheckpointReader reader);

  CheckpointReader reader_;
  std::string header_;
  bool header_sent_ = false;
  int64_t next_class_ = 0;
};

}  // namespace shardmax
