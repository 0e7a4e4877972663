// Points of a curve, prepared for drawing. Pure.
#pragma once

#include <cstddef>
#include <vector>

namespace shardmax {

struct Point {
  double x;
  double y;  // May be NaN: a gap.
};
using Curve = std::vector<Point>;

// The running mean over about `share` of the curve, windows cut at its ends; values that are not finite are left out.
Curve Smoothed(const Curve& curve, double share);

// At most 2 * `buckets` points that look the same: the lowest and highest of each of `buckets` equal parts of the x
// range. Gaps between finite points may vanish within a part. Requires ascending x.
Curve Thinned(const Curve& curve, size_t buckets);

}  // namespace shardmax
