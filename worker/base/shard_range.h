// Which rank owns which classes, and which rows of a batch: written once.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace shardmax {

// A contiguous range [first, first + count) of classes or rows.
struct Range {
  int64_t first = 0;
  int64_t count = 0;

  int64_t end() const { return first + count; }
  bool contains(int64_t i) const { return i >= first && i < first + count; }
  friend bool operator==(const Range&, const Range&) = default;
};

// The part of [0, total) that belongs to `part` of `parts`: contiguous, ascending, sizes differ by at most one (the
// first total mod parts get one more). Requires parts >= 1 and 0 <= part < parts; a part may be empty.
Range BalancedPart(int64_t total, int part, int parts);

// The classes of `rank`. InvalidArgument: world_size is 0 or larger than num_classes (every rank owns at least one
// class), or rank is not in [0, world_size).
absl::StatusOr<Range> ShardOfRank(int64_t num_classes, int rank, int world_size);

// How many of `count` float32 rows of width `dim` go at a time where a shard streams through a buffer of about
// `chunk_bytes`: at least one. Requires count >= 1.
int64_t RowsOfChunk(int64_t count, int64_t dim, int64_t chunk_bytes = 4 << 20);

}  // namespace shardmax
