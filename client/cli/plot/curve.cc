#include "client/cli/plot/curve.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace shardmax {

Curve Smoothed(const Curve& curve, double share) {
  const auto half = static_cast<size_t>(static_cast<double>(curve.size()) * share / 2);
  std::vector<double> sums = {0};
  std::vector<size_t> counts = {0};
  for (const Point& point : curve) {
    const bool known = std::isfinite(point.y);
    sums.push_back(sums.back() + (known ? point.y : 0));
    counts.push_back(counts.back() + (known ? 1 : 0));
  }
  Curve smooth;
  for (size_t i = 0; i < curve.size(); ++i) {
    const size_t first = i > half ? i - half : 0;
    const size_t end = std::min(i + half + 1, curve.size());
    const size_t count = counts[end] - counts[first];
    const double none = std::numeric_limits<double>::quiet_NaN();
    smooth.push_back({curve[i].x, count > 0 ? (sums[end] - sums[first]) / static_cast<double>(count) : none});
  }
  return smooth;
}

Curve Thinned(const Curve& curve, size_t buckets) {
  if (curve.size() <= 2 * buckets) return curve;
  const double first = curve.front().x;
  const double width = (curve.back().x - first) / static_cast<double>(buckets);
  Curve thin;
  size_t at = 0;
  for (size_t bucket = 0; bucket < buckets; ++bucket) {
    const double end = first + width * static_cast<double>(bucket + 1);
    const Point* lowest = nullptr;
    const Point* highest = nullptr;
    const bool last = bucket + 1 == buckets;
    size_t seen = 0;
    for (; at < curve.size() && (last || curve[at].x < end); ++at, ++seen) {
      const Point& point = curve[at];
      if (!std::isfinite(point.y)) continue;
      if (lowest == nullptr || point.y < lowest->y) lowest = &point;
      if (highest == nullptr || point.y > highest->y) highest = &point;
    }
    if (lowest == nullptr) {
      if (seen > 0) thin.push_back({end - width / 2, std::numeric_limits<double>::quiet_NaN()});
      continue;
    }
    thin.push_back(lowest < highest ? *lowest : *highest);
    if (lowest != highest) thin.push_back(lowest < highest ? *highest : *lowest);
  }
  return thin;
}

}  // namespace shardmax
