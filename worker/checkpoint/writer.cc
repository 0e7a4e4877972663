#include <algorithm>
#include <cstring>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "worker/base/status.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/checkpoint/folders.h"
#include "worker/checkpoint/manifest.h"
#include "worker/data/file.h"
#include "worker/data/safetensors.h"

namespace shardmax {
namespace {

namespace fs = std::filesystem;
using shardmax::v1::Manifest;

// What a rank tells the others about its file.
struct Entry {
  int64_t first_class = 0;
  int64_t num_classes = 0;
  char checksum[48] = {};  // Ends with zeros.
};

std::string FileName(Range classes) {
  return fmt::format("classes-{:08}-{:08}.safetensors", classes.first, classes.end() - 1);
}

absl::Status CheckArguments(const Manifest& manifest, Range shard, int keep) {
  SHARDMAX_RETURN_IF_ERROR(Annotate(CheckManifestState(manifest), "checkpoint"));
  if (shard.first < 0 || shard.count < 1 || shard.count > manifest.num_classes() - shard.first) {
    return InvalidArgument("checkpoint: the shard of {} classes from {} on is not inside [0, {})", shard.count,
                           shard.first, manifest.num_classes());
  }
  if (keep < 1) return InvalidArgument("checkpoint.keep is {}: 1 or more is needed", keep);
  return absl::OkStatus();
}

absl::Status MakeFolders(const std::string& checkpoints_dir, const std::string& temporary) {
  std::error_code error;
  const bool made = fs::create_directories(checkpoints_dir, error);
  if (error) return ErrnoError(error.value(), checkpoints_dir);
  if (made) SHARDMAX_RETURN_IF_ERROR(SyncFolder(fs::absolute(checkpoints_dir).parent_path().string()));
  SHARDMAX_RETURN_IF_ERROR(RestoreSetAside(checkpoints_dir));
  fs::remove_all(temporary, error);
  if (!error) fs::create_directory(temporary, error);
  return error ? ErrnoError(error.value(), temporary) : absl::OkStatus();
}

// Writes the rows of one tensor, a chunk at a time.
absl::Status AppendTensor(const std::string& name, Range shard, std::span<float> chunk, int64_t dim,
                          const ReadShardRows& read_rows, SafetensorsWriter& writer) {
  const int64_t chunk_rows = static_cast<int64_t>(chunk.size()) / dim;
  for (int64_t first = shard.first; first < shard.end(); first += chunk_rows) {
    const Range classes{first, std::min(chunk_rows, shard.end() - first)};
    const MatrixView<float> rows{chunk.data(), classes.count, dim};
    SHARDMAX_RETURN_IF_ERROR(read_rows(name, classes, rows));
    SHARDMAX_RETURN_IF_ERROR(writer.Append(rows.flat()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> WriteShard(const std::string& path, const Manifest& manifest, Range shard,
                                       const ReadShardRows& read_rows) {
  std::vector<SafetensorsWriter::Tensor> tensors;
  for (const std::string& name : manifest.tensors()) {
    tensors.push_back({name, {shard.count, WidthOf(manifest, name)}, DtypeOf(manifest, name)});
  }
  SHARDMAX_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::Create(path, tensors));

  // Stays in the second-level cache from the engine to the checksum and the file's buffer.
  constexpr int64_t kChunkBytes = 256 << 10;
  std::vector<float> chunk;
  for (const std::string& name : manifest.tensors()) {
    const int64_t width = WidthOf(manifest, name);
    chunk.resize(static_cast<size_t>(RowsOfChunk(shard.count, width, kChunkBytes) * width));
    SHARDMAX_RETURN_IF_ERROR(AppendTensor(name, shard, chunk, width, read_rows, writer));
  }
  return writer.Finish();
}

absl::Status GatherFiles(Communicator& comm, Range shard, const std::string& checksum, Manifest& manifest) {
  Entry mine{shard.first, shard.count, {}};
  std::memcpy(mine.checksum, checksum.data(), std::min(checksum.size(), sizeof(mine.checksum) - 1));
  std::vector<Entry> all(static_cast<size_t>(comm.size()));
  SHARDMAX_RETURN_IF_ERROR(comm.AllGather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all))));
  for (const Entry& entry : all) {
    shardmax::v1::ManifestFile* file = manifest.add_files();
    file->set_path(FileName({entry.first_class, entry.num_classes}));
    file->set_first_class(static_cast<int32_t>(entry.first_class));
    file->set_num_classes(static_cast<int32_t>(entry.num_classes));
    file->set_checksum(entry.checksum);
  }
  return absl::OkStatus();
}

absl::Status Publish(const std::string& checkpoints_dir, const std::string& temporary, const Manifest& manifest) {
  SHARDMAX_RETURN_IF_ERROR(Annotate(CheckManifest(manifest), "checkpoint"));
  SHARDMAX_ASSIGN_OR_RETURN(const std::string json, ManifestToJson(manifest));
  SHARDMAX_ASSIGN_OR_RETURN(File file, File::Create(temporary + "/" + kManifestName));
  SHARDMAX_RETURN_IF_ERROR(file.Append(std::as_bytes(std::span(json))));
  SHARDMAX_RETURN_IF_ERROR(file.SyncAndClose());
  SHARDMAX_RETURN_IF_ERROR(SyncFolder(temporary));
  return PublishFolder(checkpoints_dir, temporary, manifest.step());
}

}  // namespace

CheckpointWrite::CheckpointWrite(std::string checkpoints_dir, Manifest manifest, Range shard, int keep)
    : checkpoints_dir_(std::move(checkpoints_dir)), manifest_(std::move(manifest)), shard_(shard), keep_(keep) {
  manifest_.set_format_version(kManifestVersion);
  manifest_.clear_files();
  temporary_ = checkpoints_dir_ + "/" + TemporaryFolderName(manifest_.step());
}

absl::StatusOr<std::unique_ptr<CheckpointWrite>> CheckpointWrite::Begin(Communicator& comm,
                                                                        const std::string& checkpoints_dir,
                                                                        Manifest manifest, Range shard, int keep) {
  std::unique_ptr<CheckpointWrite> write(new CheckpointWrite(checkpoints_dir, std::move(manifest), shard, keep));
  absl::Status mine = CheckArguments(write->manifest_, shard, keep);
  if (mine.ok() && comm.rank() == 0) mine = MakeFolders(checkpoints_dir, write->temporary_);
  SHARDMAX_RETURN_IF_ERROR(write->RemoveUnless(comm, AgreeOk(comm, mine)));
  return write;
}

void CheckpointWrite::WriteShard(const ReadShardRows& read_rows) {
  checksum_ = shardmax::WriteShard(temporary_ + "/" + FileName(shard_), manifest_, shard_, read_rows);
}

absl::Status CheckpointWrite::Finish(Communicator& comm) {
  SHARDMAX_RETURN_IF_ERROR(RemoveUnless(comm, Publish(comm)));
  if (comm.rank() == 0) RemoveOldest(checkpoints_dir_, manifest_.step(), keep_);
  return absl::OkStatus();
}

absl::Status CheckpointWrite::Publish(Communicator& comm) {
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm, checksum_.status()));
  SHARDMAX_RETURN_IF_ERROR(GatherFiles(comm, shard_, *checksum_, manifest_));
  absl::Status published;
  if (comm.rank() == 0) published = shardmax::Publish(checkpoints_dir_, temporary_, manifest_);
  return AgreeOk(comm, published);
}

absl::Status CheckpointWrite::RemoveUnless(const Communicator& comm, absl::Status status) const {
  std::error_code ignored;
  if (!status.ok() && comm.rank() == 0) fs::remove_all(temporary_, ignored);
  return status;
}

absl::Status WriteCheckpoint(Communicator& comm, const std::string& checkpoints_dir, Manifest manifest, Range shard,
                             const ReadShardRows& read_rows, int keep) {
  SHARDMAX_ASSIGN_OR_RETURN(const auto write,
                            CheckpointWrite::Begin(comm, checkpoints_dir, std::move(manifest), shard, keep));
  write->WriteShard(read_rows);
  return write->Finish(comm);
}

}  // namespace shardmax
