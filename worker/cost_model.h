// What a training step costs on GPUs, worked out from the shapes alone: for --dry_run and docs/performance.md.
#pragma once

#include <cstdint>
#include <string>

#include "worker/engine/cuda/device_plan.h"
#include "worker/engine/engine.h"

namespace shardmax {

// Of one step on the rank with the largest shard. Bytes and operations are those that the code moves and does (tests
// compare them with its counters); seconds are a model.
struct DeviceStepCost {
  cuda::DevicePlan plan;  // Memory.

  // What this rank contributes to each collective, as CommStats counts it.
  int64_t gather_bytes = 0;
  int64_t label_bytes = 0;
  int64_t normalise_bytes = 0;
  int64_t scatter_bytes = 0;

  int64_t product_flops = 0;  // Of the matrix products.
  int64_t hbm_bytes = 0;      // Weights, their copy and state; tiles stay in the cache.
  int64_t wire_bytes = 0;     // What a ring algorithm sends for those collectives.
  int64_t host_bytes = 0;     // Between host and device, both ways: this rank's rows and their gradients.
};

DeviceStepCost CostOfStep(const EngineOptions& options, int64_t rows, int ranks, bool with_feature_gradients,
                          int64_t l2_bytes);

// A device by its data sheet.
struct DeviceRates {
  std::string name;
  double float32_flops, bfloat16_flops;  // a second
  double hbm_bytes, host_bytes;          // a second
  double wire_bytes;                     // a second, to the other devices
  int64_t memory_bytes, l2_bytes;
};
// H100 SXM: NVLink between the eight of a machine, 400 Gbit/s a GPU beyond.
DeviceRates H100(int ranks);

// Several lines: memory of a rank, bytes of each collective, operations, and the bound that dominates.
std::string DescribeCost(const EngineOptions& options, int64_t rows, int ranks, bool with_feature_gradients,
                         const DeviceRates& rates);

}  // namespace shardmax
