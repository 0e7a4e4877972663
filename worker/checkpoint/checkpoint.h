// Checkpoint folders: `step-00001000/` with safetensors files, one for each rank that wrote it, and manifest.json.
//
// Format: proto/shardmax/v1/checkpoint.proto. A folder is complete or absent: it is written as `.tmp-step-…`, synced,
// and renamed. Any number of ranks loads it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardmax/v1/checkpoint.pb.h"
#include "worker/base/matrix_view.h"
#include "worker/base/shard_range.h"
#include "worker/comm/communicator.h"

namespace shardmax {

// Copies rows of this rank's shard: `classes` (global ids, inside the shard) of tensor `name` into out [n, D].
using ReadShardRows = std::function<absl::Status(const std::string& name, Range classes, MatrixView<float> out)>;

// Writes the state of `manifest.step` under `checkpoints_dir` (made if absent) and removes the oldest complete
// checkpoints beyond `keep`, and leftovers of interrupted writes. `manifest` has everything but `files`. Streams: needs
// a few MiB, never a copy of the shard. Collective; all ranks return the same status. On error (full disk, unwritable
// folder) the earlier checkpoints are intact and the temporary folder is removed. A folder of the same step is
// replaced.
absl::Status WriteCheckpoint(Communicator& comm, const std::string& checkpoints_dir, shardmax::v1::Manifest manifest,
                             Range shard, const ReadShardRows& read_rows, int keep);

// A checkpoint folder that was opened and found whole.
class CheckpointReader {
 public:
  // Reads and checks the manifest (version, ranges tile [0, C), plain file names) and the header of every file
  // (tensors, shapes, dtypes, sizes). Does not read the rows: see VerifyFile.
  static absl::StatusOr<CheckpointReader> Open(const std::string& folder);

  const shardmax::v1::Manifest& manifest() const { return manifest_; }
  const std::string& folder() const { return folder_; }

  // Reads the whole file `index` and compares its checksum. DataLoss naming the file if it differs.
  absl::Status VerifyFile(int index) const;

  // Copies `classes` of tensor `name` into out [n, D], across files. InvalidArgument: no such tensor or range.
  absl::Status Read(const std::string& name, Range classes, MatrixView<float> out) const;

 private:
  std::string folder_;
  shardmax::v1::Manifest manifest_;
};

struct NewestCheckpoint {
  std::string folder;                 // Empty: there is no valid checkpoint.
  std::vector<std::string> rejected;  // One sentence for each newer folder that is not valid, newest first.
};

// Finds the newest folder under `checkpoints_dir` that opens and whose files all match their checksums; the files are
// shared out among the ranks for verification. A folder that does not exist holds none. Collective; all ranks
// return the same.
absl::StatusOr<NewestCheckpoint> FindNewestValid(Communicator& comm, const std::string& checkpoints_dir);

}  // namespace shardmax
