// Which rows of the global batch count (HM-Softmax).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace shardmax {

// Of the rows with counted[i], keeps the ceil(keep * number of counted rows), in double, of largest loss, ties to the
// lower row.
// Returns one flag a row. Requires 0 < keep <= 1 and equal sizes. The same input gives the same rows on every rank.
std::vector<bool> HardestRows(std::span<const double> losses, const std::vector<bool>& counted, double keep);

}  // namespace shardmax
