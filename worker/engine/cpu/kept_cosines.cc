#include "worker/engine/cpu/kept_cosines.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "worker/base/status.h"

namespace shardmax {

absl::Status KeptCosines::Reserve(int64_t classes, int64_t padded_rows) {
  padded_rows_ = padded_rows;
  const absl::Status grown = storage_ == CosineStorage::kKeepFloat32 ? Grow(float32_, classes * padded_rows)
                             : storage_ == CosineStorage::kKeepInt16 ? Grow(int16_, classes * padded_rows)
                                                                     : absl::OkStatus();
  if (grown.ok()) return grown;
  return Annotate(grown, fmt::format("kept cosines of {} classes x {} rows", classes, padded_rows));
}

void KeptCosines::SetThresholds(std::span<const float> thresholds) {
  thresholds_.assign(thresholds.begin(), thresholds.end());
  if (storage_ != CosineStorage::kKeepInt16) return;
  int16_thresholds_.resize(thresholds.size());
  for (size_t b = 0; b < thresholds.size(); ++b) {
    constexpr double kLowest = std::numeric_limits<int16_t>::min();
    constexpr double kHighest = std::numeric_limits<int16_t>::max();
    const double step = std::clamp(std::floor(thresholds[b] * kHighest), kLowest, kHighest);
    int16_thresholds_[b] = static_cast<int32_t>(step);
    thresholds_[b] = static_cast<float>((step + 0.5) / kHighest);
  }
}

const float* KeptCosines::thresholds() const {
  return thresholds_.data();
}

KeptTile KeptCosines::Tile(int64_t first) {
  switch (storage_) {
    case CosineStorage::kKeepFloat32:
      return {.float32 = float32_.data() + first * padded_rows_};
    case CosineStorage::kKeepInt16:
      return {.int16 = int16_.data() + first * padded_rows_, .int16_thresholds = int16_thresholds_.data()};
    default:
      return {};
  }
}

}  // namespace shardmax
