// The head of a block that travels between devices. Free of CUDA and of Abseil.
#pragma once

#include <cstddef>
#include <cstdint>

namespace shardmax {

// Begins every block, in kBytes bytes: a status of the head's, opaque to kernels but for its first four bytes, which
// are 0 where all is well with the rank; the last four bytes are the engine's.
struct DeviceHeader {
  static constexpr size_t kBytes = 264;
  static constexpr size_t kStatusBytes = kBytes - sizeof(int32_t);
};

}  // namespace shardmax
