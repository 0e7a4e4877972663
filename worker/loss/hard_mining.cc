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
  // 0.9 * 10 is 9 for a person, but 9.000000000000002 is possible in floating point: forgive one part in 1e9.
  const auto kept_rows =
      std::min(rows.size(), static_cast<size_t>(std::ceil(keep * static_cast<double>(rows.size()) * (1 - 1e-9))));
  std::partial_sort(rows.begin(), rows.begin() + static_cast<int64_t>(kept_rows), rows.end(),
                    [&](int64_t a, int64_t b) { return losses[a] != losses[b] ? losses[a] > losses[b] : a < b; });
  std::vector<bool> kept(losses.size(), false);
  for (size_t i = 0; i < kept_rows; ++i) kept[rows[i]] = true;
  return kept;
}

}  // namespace shardmax
