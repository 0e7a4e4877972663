// A copy of a shard, for a checkpoint that is written while training goes on.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/base/aligned_buffer.h"
#include "worker/engine/engine.h"

namespace shardmax {

// Weights and optimizer state of an engine's shard as they were when it was taken, each value as wide as in a
// checkpoint. Movable; any thread reads.
class ShardSnapshot {
 public:
  // The memory that one takes.
  static int64_t BytesOf(const EngineOptions& options);

  // Not collective. ResourceExhausted: there is no memory; or the error of the engine.
  static absl::StatusOr<ShardSnapshot> Take(const Engine& engine);

  // As Engine::ReadRows.
  absl::Status ReadRows(const std::string& tensor, Range classes, MatrixView<float> rows) const;

 private:
  using Values = std::variant<AlignedBuffer<float>, AlignedBuffer<uint16_t>>;

  ShardSnapshot(Range shard, int64_t dim) : shard_(shard), dim_(dim) {}
  absl::Status Add(const Engine& engine, const std::string& tensor, bool bfloat16);

  Range shard_;
  int64_t dim_;
  std::map<std::string, Values> tensors_;
};

}  // namespace shardmax
