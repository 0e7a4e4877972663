// Which rows of the global batch count (HM-Softmax).
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "worker/loss/portable.h"

namespace shardmax {

// How many of `counted` rows are kept: ceil(keep counted) in double, as every program writes it, 0.55 * 100 being
// 55.00000000000001 (docs/decisions.md).
SHARDMAX_HOST_DEVICE inline int64_t KeptCount(double keep, int64_t counted) {
  const auto kept = static_cast<int64_t>(std::ceil(keep * static_cast<double>(counted)));
  return keep >= 1 || kept > counted ? counted : kept;
}

// Of the rows with counted[i], keeps the KeptCount() of largest loss, ties to the lower row: sets kept[i]. `rows` is
// memory to work in. Requires 0 < keep <= 1 and equal sizes. The same input gives the same rows on every rank.
void SetHardestRows(std::span<const double> losses, const std::vector<bool>& counted, double keep,
                    std::vector<int64_t>& rows, std::vector<bool>& kept);

}  // namespace shardmax
