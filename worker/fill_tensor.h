// From wherever rows come into an engine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "worker/base/status.h"
#include "worker/engine/engine.h"

namespace shardmax {

// Copies `classes` (global ids) to rows [n, D].
using ReadClasses = std::function<absl::Status(Range classes, MatrixView<float> rows)>;

// Takes `classes` from rows [n, D].
using WriteClasses = std::function<absl::Status(Range classes, MatrixView<const float> rows)>;

// Passes all rows [n, width] of the classes of `shard` from `read` to `write`, some MiB at a time.
inline absl::Status FillRows(Range shard, int64_t width, const ReadClasses& read, const WriteClasses& write) {
  const int64_t chunk_classes = RowsOfChunk(shard.count, width);
  std::vector<float> chunk(static_cast<size_t>(chunk_classes * width));
  for (int64_t first = shard.first; first < shard.end(); first += chunk_classes) {
    const Range classes = {first, std::min(chunk_classes, shard.end() - first)};
    const MatrixView<float> rows = {chunk.data(), classes.count, width};
    SHARDMAX_RETURN_IF_ERROR(read(classes, rows));
    SHARDMAX_RETURN_IF_ERROR(write(classes, rows));
  }
  return absl::OkStatus();
}

// Sets every row of the engine's shard of `tensor` from `read`.
inline absl::Status FillTensor(Engine& engine, const std::string& tensor, const ReadClasses& read) {
  return FillRows(engine.options().shard, engine.options().dim, read,
                  [&](Range classes, MatrixView<const float> rows) { return engine.WriteRows(tensor, classes, rows); });
}

}  // namespace shardmax
