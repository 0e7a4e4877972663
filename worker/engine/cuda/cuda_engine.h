// The engine of an NVIDIA GPU: the shard stays in device memory, and so does all work on it.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "worker/engine/engine.h"

namespace shardmax {

// An engine on `device` (an ordinal of the CUDA runtime). Products are of float32 (FLOAT32: true float32, no TF32) or
// of bfloat16 by the tensor cores; everything else is float32, sums of a row float64.
//
// Unimplemented: optimizer state in bfloat16, sampling. Cosines are recomputed in Backward: options.cosines is not
// read, and neither are threads and processors.
//
// device() has the phases that a head between devices calls, which only enqueue. In the phases of Engine, which go by
// way of the host, the host waits when LabelCosines and Score return, and when Backward returns feature gradients;
// without them Backward only enqueues. An error of the device may show one call later. Memory is allocated for batches
// of options.batch_rows and options.ranks when the engine is made, and again only when a larger batch comes.
//
// ResourceExhausted, before anything is allocated: the shard does not fit into the memory that is free; the message has
// the bytes needed and the most classes that fit. FailedPrecondition: no driver, or a device that this build cannot
// use.
absl::StatusOr<std::unique_ptr<Engine>> MakeCudaEngine(const EngineOptions& options, int device);

}  // namespace shardmax
