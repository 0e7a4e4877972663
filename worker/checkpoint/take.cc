#include <algorithm>
#include <vector>

#include "worker/base/status.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/checkpoint/manifest.h"

namespace shardmax {
namespace {

bool Holds(Range outer, Range inner) {
  return outer.first <= inner.first && inner.end() <= outer.end();
}

// The rows of `shard` that lie in files which no rank takes whole.
absl::Status TakeParts(const CheckpointReader& reader, Range shard, const std::vector<bool>& taken_whole,
                       const TakeShardRows& take) {
  std::vector<float> chunk;
  for (int index = 0; index < reader.manifest().files_size(); ++index) {
    if (taken_whole[static_cast<size_t>(index)]) continue;
    const Range classes = reader.ClassesOf(index);
    const int64_t end = std::min(shard.end(), classes.end());
    for (const std::string& name : reader.manifest().tensors()) {
      const int64_t width = WidthOf(reader.manifest(), name);
      const int64_t chunk_rows = RowsOfChunk(shard.count, width);
      chunk.resize(static_cast<size_t>(chunk_rows * width));
      for (int64_t first = std::max(shard.first, classes.first); first < end; first += chunk_rows) {
        const Range part = {first, std::min(chunk_rows, end - first)};
        const MatrixView<float> rows = {chunk.data(), part.count, width};
        SHARDMAX_RETURN_IF_ERROR(reader.Read(name, part, rows));
        SHARDMAX_RETURN_IF_ERROR(take(name, part, rows));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status TakeCheckpoint(Communicator& comm, const CheckpointReader& reader,
                            const std::function<Range(int rank)>& shard_of, const TakeShardRows& take) {
  const Range shard = shard_of(comm.rank());
  std::vector<bool> taken_whole(static_cast<size_t>(reader.manifest().files_size()));
  absl::Status mine;
  for (int index = 0; index < reader.manifest().files_size(); ++index) {
    const Range classes = reader.ClassesOf(index);
    bool whole = false;
    for (int rank = 0; rank < comm.size() && !whole; ++rank) whole = Holds(shard_of(rank), classes);
    taken_whole[static_cast<size_t>(index)] = whole;
    if (!mine.ok()) continue;
    if (Holds(shard, classes)) mine = reader.TakeFile(index, take);
    if (!whole && index % comm.size() == comm.rank()) mine = reader.VerifyFile(index);
  }
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm, mine));
  return AgreeOk(comm, TakeParts(reader, shard, taken_whole, take));
}

}  // namespace shardmax
