// Checkpoint folders: `step-00001000/` with safetensors files, one for each rank that wrote it, and manifest.json.
//
// Format: proto/shardmax/v1/checkpoint.proto. A folder is complete or absent: it is written as `.tmp-step-…`, synced,
// and renamed. Any number of ranks loads it. A file is named after its first and last class:
// `classes-00000000-00009999.safetensors`.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardmax/v1/checkpoint.pb.h"
#include "worker/base/matrix_view.h"
#include "worker/base/shard_range.h"
#include "worker/comm/communicator.h"
#include "worker/data/safetensors.h"

namespace shardmax {

// Copies rows of this rank's shard: `classes` (global ids, inside the shard) of tensor `name` into out [n, D]. Tensors
// that the manifest has as BF16 are rounded to the nearest. Of "neighbours" rows are [n, k], and a float stands for an
// int32 of the same bits, here and wherever rows are read.
using ReadShardRows = std::function<absl::Status(const std::string& name, Range classes, MatrixView<float> out)>;

// Takes rows that were read: `rows` [n, D] are `classes` (global ids) of tensor `name`.
using TakeShardRows = std::function<absl::Status(const std::string& name, Range classes, MatrixView<const float> rows)>;

// Writes the state of `manifest.step` under `checkpoints_dir` (made if absent). `manifest` has everything but
// `format_version` and `files`. Streams: needs about 12 MiB, never a copy of the shard. A folder of the same step is
// replaced. Then removes the oldest checkpoints so that `keep` remain up to this step (later steps, left by a run that
// was resumed from an earlier one, are not counted and stay), and leftovers of interrupted writes; what cannot be
// removed stays until the next write, and is no error.
//
// Collective; the folder is shared by all ranks, whose shards are [0, C) in rank order; all ranks return the same
// status. Ranks wait for the slowest to write its shard, so the communicator's time-out must allow for that. On error
// (full disk, unwritable folder, an error of read_rows) the earlier checkpoints are intact and the temporary folder is
// removed; nothing else is.
absl::Status WriteCheckpoint(Communicator& comm, const std::string& checkpoints_dir, shardmax::v1::Manifest manifest,
                             Range shard, const ReadShardRows& read_rows, int keep);

// The same in stages, for ranks that do other things while their shards are written.
class CheckpointWrite {
 public:
  // Makes the temporary folder. Collective; all ranks return the same status.
  static absl::StatusOr<std::unique_ptr<CheckpointWrite>> Begin(Communicator& comm, const std::string& checkpoints_dir,
                                                                shardmax::v1::Manifest manifest, Range shard, int keep);

  // Writes this rank's file, on any thread, once. Its error is that of Finish.
  void WriteShard(const ReadShardRows& read_rows);

  // Publishes the folder, once the file of this rank is written. Collective; waits for the slowest, and all ranks
  // return the same status. On error the temporary folder is removed. Without Finish it stays until the next write.
  absl::Status Finish(Communicator& comm);

  int32_t step() const { return manifest_.step(); }
  const shardmax::v1::Manifest& manifest() const { return manifest_; }

 private:
  CheckpointWrite(std::string checkpoints_dir, shardmax::v1::Manifest manifest, Range shard, int keep);
  absl::Status Publish(Communicator& comm);
  // Returns `status`; rank 0 removes the temporary folder if it is an error.
  absl::Status RemoveUnless(const Communicator& comm, absl::Status status) const;

  std::string checkpoints_dir_;
  std::string temporary_;
  shardmax::v1::Manifest manifest_;
  Range shard_;
  int keep_;
  absl::StatusOr<std::string> checksum_;
};

// A checkpoint folder that was opened and found whole. Copyable; any thread reads. Holds no file open, and reads
// rather than maps: rows go once, straight to where they belong.
class CheckpointReader {
 public:
  // Reads and checks the manifest (version, ranges tile [0, C), plain file names) and the header of every file
  // (tensors, shapes, dtypes, sizes; links are refused). Does not read the rows: see VerifyFile. InvalidArgument, or
  // the system's error, naming the file.
  static absl::StatusOr<CheckpointReader> Open(const std::string& folder);

  const shardmax::v1::Manifest& manifest() const { return manifest_; }
  const std::string& folder() const { return folder_; }

  // Reads the whole file `index`, in [0, manifest().files_size()), and compares its checksum. DataLoss naming the file
  // if it differs.
  absl::Status VerifyFile(int index) const;

  // Reads the file `index` whole, once and in order, gives its rows to `take` some MiB at a time, and compares its
  // checksum: what was taken is only right if this is OK. DataLoss as VerifyFile; or the error of `take`.
  absl::Status TakeFile(int index, const TakeShardRows& take) const;

  // The classes of the file `index`.
  Range ClassesOf(int index) const {
    return {manifest_.files(index).first_class(), manifest_.files(index).num_classes()};
  }

  // Copies `classes` of tensor `name` into out [n, D], across files. InvalidArgument: no such tensor or range, or out
  // of another shape.
  absl::Status Read(const std::string& name, Range classes, MatrixView<float> out) const;

 private:
  CheckpointReader(std::string folder, shardmax::v1::Manifest manifest);
  std::string PathOf(int index) const;
  absl::StatusOr<SafetensorsFile> OpenFile(int index) const;
  absl::Status CompareChecksum(int index, const Checksum& checksum) const;

  std::string folder_;
  shardmax::v1::Manifest manifest_;
};

// The name of the newest checkpoint under `checkpoints_dir`, "step-00001000", valid or not; empty if there is none.
// Only for the job that writes there: see FindNewestValid. Not collective.
absl::StatusOr<std::string> NewestName(const std::string& checkpoints_dir);

// OK if the checkpoint in `folder` opens and its files match their checksums, on every rank; the files are shared out
// among the ranks. Collective; all ranks return alike.
absl::Status VerifyCheckpoint(Communicator& comm, const std::string& folder);

struct NewestCheckpoint {
  std::string folder;                 // Empty: there is no valid checkpoint.
  std::vector<std::string> rejected;  // One sentence for each newer folder that is not valid, newest first.
};

// Whether the checkpoint in `folder` is valid. Collective; all ranks return alike.
using IsValidCheckpoint = std::function<absl::Status(const std::string& folder)>;

// Finds the newest folder under `checkpoints_dir` that is valid. A folder that does not exist holds none. Only for the
// job that writes there: it first undoes a replacement that was interrupted. Collective; all ranks return the same.
absl::StatusOr<NewestCheckpoint> FindNewest(Communicator& comm, const std::string& checkpoints_dir,
                                            const IsValidCheckpoint& is_valid);

// The same by VerifyCheckpoint.
absl::StatusOr<NewestCheckpoint> FindNewestValid(Communicator& comm, const std::string& checkpoints_dir);

// Gives the rows of this rank's shard, `shard_of(rank)`, in all tensors to `take`, and verifies every file: those that
// are whole in one rank's shard are read once, by that rank; the others are shared out among the ranks for verification
// and then read where they are needed. What was taken is only right if this is OK. Collective; all ranks return alike.
absl::Status TakeCheckpoint(Communicator& comm, const CheckpointReader& reader,
                            const std::function<Range(int rank)>& shard_of, const TakeShardRows& take);

}  // namespace shardmax
