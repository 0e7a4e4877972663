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

// Sets every row of the engine's shard of `tensor` from `read`, some MiB at a time.
inline absl::Status FillTensor(Engine& engine, const std::string& tensor, const ReadClasses& read) {
  const Range shard = engine.options().shard;
  const int64_t dim = engine.options().dim;
  const int64_t chunk_classes = RowsOfChunk(shard.count, dim);
  std::vector<float> chunk(static_cast<size_t>(chunk_classes * dim));
  for (int64_t first = shard.first; first < shard.end(); first += chunk_classes) {
    const Range classes = {first, std::min(chunk_classes, shard.end() - first)};
    const MatrixView<float> rows = {chunk.data(), classes.count, dim};
    SHARDMAX_RETURN_IF_ERROR(read(classes, rows));
    SHARDMAX_RETURN_IF_ERROR(engine.WriteRows(tensor, classes, rows));
  }
  return absl::OkStatus();
}

}  // namespace shardmax
