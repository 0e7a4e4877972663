// Devices that a rank may compute on, where the build knows any: the seam between the worker and CUDA.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"
#include "worker/engine/make_engine.h"

namespace shardmax {

class DeviceBackend {
 public:
  virtual ~DeviceBackend() = default;

  // Devices that this process sees, 0 included. FailedPrecondition: no driver.
  virtual absl::StatusOr<int> CountDevices() const = 0;

  // This rank's engine, on a device of its own. FailedPrecondition: there is none for it, or it cannot do what is
  // asked. ResourceExhausted, with the bytes and the most classes that fit: its memory is too small.
  virtual absl::StatusOr<EngineChoice> MakeEngine(const EngineOptions& options) const = 0;

  // Collectives between those devices, for the ranks of `bootstrap`, which outlives it and which nothing else calls
  // while one runs. Collective.
  virtual absl::StatusOr<std::unique_ptr<Communicator>> MakeComm(Communicator& bootstrap) const = 0;
};

}  // namespace shardmax
