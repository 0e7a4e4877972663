#include "worker/snapshot_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

#include "worker/base/available_memory.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr int64_t kMarginBytes = int64_t{512} << 20;
constexpr int64_t kMarginPart = 16;  // Of what is free.

}  // namespace

bool SnapshotRoom::suffices() const {
  return needed_bytes <= free_bytes - std::max(kMarginBytes, free_bytes / kMarginPart);
}

std::string SnapshotRoom::Describe() const {
  return fmt::format("a snapshot needs {} MiB on the machine of rank {}, {} MiB are free", needed_bytes >> 20,
                     lowest_rank, free_bytes >> 20);
}

SnapshotRoom RoomForSnapshots(std::span<const SnapshotMemory> ranks) {
  std::map<uint64_t, SnapshotRoom> machines;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const SnapshotMemory& memory = ranks[rank];
    const SnapshotRoom first = {.lowest_rank = static_cast<int>(rank), .free_bytes = memory.free_bytes};
    SnapshotRoom& room = machines.try_emplace(memory.machine, first).first->second;
    room.needed_bytes += memory.needed_bytes;
    room.free_bytes = std::min(room.free_bytes, memory.free_bytes);
  }
  const auto to_spare = [](const auto& machine) { return machine.second.free_bytes - machine.second.needed_bytes; };
  return std::ranges::min_element(machines, {}, to_spare)->second;
}

absl::StatusOr<SnapshotRoom> AgreeOnSnapshotRoom(Communicator& comm, int64_t needed_bytes) {
  const SnapshotMemory mine = {
      .machine = MachineId(), .needed_bytes = needed_bytes, .free_bytes = AvailableMemoryBytes()};
  std::vector<SnapshotMemory> all(static_cast<size_t>(comm.size()));
  SHARDMAX_RETURN_IF_ERROR(comm.AllGather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all))));
  return RoomForSnapshots(all);
}

}  // namespace shardmax
