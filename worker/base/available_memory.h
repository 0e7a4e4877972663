// How much memory can still be had.
#pragma once

#include <cstdint>
#include <string>

namespace shardmax {

// Bytes that this process could still take without swapping: what the system says (MemAvailable), or less where a
// control group of the process (version 2) has a limit. 0 if the system does not say. `root` is for tests.
int64_t AvailableMemoryBytes(const std::string& root = "");

// Equal for processes on one running system, which share its memory. 0 if the system does not say.
uint64_t MachineId();

}  // namespace shardmax
