// The one order in which ranks are added.
#pragma once

#include <algorithm>
#include <span>

namespace shardmax {

// sum[i] = ((parts[0][i] + parts[1][i]) + parts[2][i]) + ...: the same bits for the same parts, whoever computes it.
// parts(rank) returns a span of sum.size() floats; none overlaps `sum`. Requires ranks >= 1.
template <typename Parts>
void SumInRankOrder(int ranks, const Parts& parts, std::span<float> sum) {
  std::span<const float> first = parts(0);
  std::copy(first.begin(), first.end(), sum.begin());
  for (int rank = 1; rank < ranks; ++rank) {
    std::span<const float> part = parts(rank);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
  }
}

}  // namespace shardmax
