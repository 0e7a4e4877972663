// Whether there is room for snapshots of the shards.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"

namespace shardmax {

// What a rank would take for a snapshot, and what its machine has for all of its ranks.
struct SnapshotMemory {
  uint64_t machine = 0;  // As MachineId.
  int64_t needed_bytes = 0;
  int64_t free_bytes = 0;
};

// The machine with the least to spare: what its ranks need together, and what it has.
struct SnapshotRoom {
  int lowest_rank = 0;  // Of those on that machine.
  int64_t needed_bytes = 0;
  int64_t free_bytes = 0;

  // Not all: the system and the other processes need some, and what a machine has is known only roughly.
  bool suffices() const;

  // "a snapshot needs 6144 MiB on the machine of rank 1, 4096 MiB are free".
  std::string Describe() const;
};

// A pure function of what the ranks say. Requires at least one.
SnapshotRoom RoomForSnapshots(std::span<const SnapshotMemory> ranks);

// The same for the ranks of `comm`, each of which needs `needed_bytes` of its own. Collective; all ranks return alike.
absl::StatusOr<SnapshotRoom> AgreeOnSnapshotRoom(Communicator& comm, int64_t needed_bytes);

}  // namespace shardmax
