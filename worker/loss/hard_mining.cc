#include "worker/loss/hard_mining.h"

#include <algorithm>
#include <numeric>

namespace shardmax {

void SetHardestRows(std::span<const double> losses, const std::vector<bool>& counted, double keep,
                    std::vector<int64_t>& rows, std::vector<bool>& kept) {
  if (keep >= 1) {
    kept = counted;
    return;
  }
  rows.clear();
  for (size_t i = 0; i < losses.size(); ++i) {
    if (counted[i]) rows.push_back(static_cast<int64_t>(i));
  }
  const int64_t kept_rows = KeptCount(keep, static_cast<int64_t>(rows.size()));
  std::partial_sort(rows.begin(), rows.begin() + kept_rows, rows.end(),
                    [&](int64_t a, int64_t b) { return losses[a] != losses[b] ? losses[a] > losses[b] : a < b; });
  kept.assign(losses.size(), false);
  for (int64_t i = 0; i < kept_rows; ++i) kept[rows[i]] = true;
}

}  // namespace shardmax
