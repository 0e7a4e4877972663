#include "worker/loss/hard_mining.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace shardmax {

std::vector<bool> HardestRows(std::span<const double> losses, const std::vector<bool>& counted, double keep) {
  if (keep >= 1) return counted;
  std::vector<int64_t> rows;
  for (size_t i = 0; i < losses.size(); ++i) {
    if (counted[i]) rows.push_back(static_cast<int64_t>(i));
  }
  // As every program writes it, 0.55 * 100 being 55.00000000000001 (docs/decisions.md).
  const auto kept_rows = std::min(rows.size(), static_cast<size_t>(std::ceil(keep * static_cast<double>(rows.size()))));
  std::partial_sort(rows.begin(), rows.begin() + static_cast<int64_t>(kept_rows), rows.end(),
                    [&](int64_t a, int64_t b) { return losses[a] != losses[b] ? losses[a] > losses[b] : a < b; });
  std::vector<bool> kept(losses.size(), false);
  for (size_t i = 0; i < kept_rows; ++i) kept[rows[i]] = true;
  return kept;
}

}  // namespace shardmax
