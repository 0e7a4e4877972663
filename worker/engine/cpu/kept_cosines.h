// The cosines of a step between score and backward.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "worker/base/aligned_buffer.h"
#include "worker/engine/cpu/tile_kernels.h"
#include "worker/engine/engine.h"

namespace shardmax {

// Holds [C_r, P] cosines as CosineStorage says, or nothing; C_r are the classes that take part in a step. Thread-safe
// for tiles that do not overlap.
class KeptCosines {
 public:
  explicit KeptCosines(CosineStorage storage) : storage_(storage) {}

  bool keeps() const { return storage_ != CosineStorage::kRecompute; }

  // Makes room for so many classes and P columns. ResourceExhausted, with the bytes, without memory.
  absl::Status Reserve(int64_t classes, int64_t padded_rows);

  // Takes the thresholds f [P] of a batch, as Score has them.
  void SetThresholds(std::span<const float> thresholds);

  // Thresholds [P] that tell support vectors among the kept cosines: those of SetThresholds, or for int16 values
  // between two of its steps.
  const float* thresholds() const;

  // The place of the classes from `first` of the shard on.
  KeptTile Tile(int64_t first);

 private:
  CosineStorage storage_;
  int64_t padded_rows_ = 0;
  AlignedBuffer<float> float32_;
  AlignedBuffer<int16_t> int16_;
  std::vector<float> thresholds_;
  std::vector<int32_t> int16_thresholds_;
};

}  // namespace shardmax
