// A copy of a shard, for a checkpoint that is written while training goes on.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/base/aligned_buffer.h"
#include "worker/engine/engine.h"
#include "worker/head/neighbour_graph.h"

namespace shardmax {

// Weights, optimizer state and neighbours of a shard as they were when it was taken, each value as wide as in a
// checkpoint. Movable; any thread reads.
class ShardSnapshot {
 public:
  // The memory that one takes; `neighbours` is k of a graph, 0 without.
  static int64_t BytesOf(const EngineOptions& options, int64_t neighbours = 0);

  // With the graph, if one is given. Not collective. ResourceExhausted: there is no memory; or the error of the engine.
  static absl::StatusOr<ShardSnapshot> Take(const Engine& engine, const NeighbourGraph* neighbours = nullptr);

  // As JobTensors::ReadRows.
  absl::Status ReadRows(const std::string& tensor, Range classes, MatrixView<float> rows) const;

 private:
  using Values = std::variant<AlignedBuffer<float>, AlignedBuffer<uint16_t>>;

  ShardSnapshot(Range shard, int64_t dim) : shard_(shard), dim_(dim) {}
  absl::Status Add(const Engine& engine, const std::string& tensor, bool bfloat16);

  Range shard_;
  int64_t dim_;
  std::map<std::string, Values> tensors_;
  std::optional<NeighbourGraph> neighbours_;
};

}  // namespace shardmax
