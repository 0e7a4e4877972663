#include "worker/eval/error_rates.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace shardmax {
namespace {

double Share(int64_t part, int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

RocCurve MakeRocCurve(std::vector<double> genuine, std::vector<double> impostor) {
  std::sort(genuine.begin(), genuine.end(), std::greater<>());
  std::sort(impostor.begin(), impostor.end(), std::greater<>());
  RocCurve curve = {.pairs = {static_cast<int64_t>(genuine.size()), static_cast<int64_t>(impostor.size())}};
  size_t g = 0;
  size_t i = 0;
  while (g < genuine.size() || i < impostor.size()) {
    constexpr double kNone = -std::numeric_limits<double>::infinity();
    const double threshold =
        std::max(g < genuine.size() ? genuine[g] : kNone, i < impostor.size() ? impostor[i] : kNone);
    while (g < genuine.size() && genuine[g] == threshold) ++g;
    while (i < impostor.size() && impostor[i] == threshold) ++i;
    curve.points.push_back({threshold, static_cast<int64_t>(g), static_cast<int64_t>(i)});
  }
  return curve;
}

double AreaUnderCurve(const RocCurve& curve) {
  double area = 0;
  RocPoint last;
  for (const RocPoint& point : curve.points) {
    area += Share(point.false_accepts - last.false_accepts, curve.pairs.impostor) *
            (Share(point.true_accepts, curve.pairs.genuine) + Share(last.true_accepts, curve.pairs.genuine)) / 2;
    last = point;
  }
  return area;
}

double EqualErrorRate(const RocCurve& curve) {
  double last_far = 0;
  double last_miss = 1;
  for (const RocPoint& point : curve.points) {
    const double far = Share(point.false_accepts, curve.pairs.impostor);
    const double miss = 1 - Share(point.true_accepts, curve.pairs.genuine);
    if (far >= miss) {
      // FAR - miss rises from below zero to zero or above on this line.
      const double before = last_miss - last_far;
      const double after = far - miss;
      return last_far + (far - last_far) * before / (before + after);
    }
    last_far = far;
    last_miss = miss;
  }
  return last_far;  // Not reached: the last vertex has FAR 1.
}

int64_t MostFalseAccepts(double far, int64_t impostor_pairs) {
  auto most = static_cast<int64_t>(far * static_cast<double>(impostor_pairs));
  // The product is rounded; what counts is the quotient that is reported.
  while (most < impostor_pairs && Share(most + 1, impostor_pairs) <= far) ++most;
  while (most > 0 && Share(most, impostor_pairs) > far) --most;
  return most;
}

std::optional<RocPoint> PointAtRate(const RocCurve& curve, double far) {
  const int64_t most = MostFalseAccepts(far, curve.pairs.impostor);
  if (most == 0) return std::nullopt;
  const auto beyond = std::partition_point(curve.points.begin(), curve.points.end(),
                                           [&](const RocPoint& point) { return point.false_accepts <= most; });
  if (beyond == curve.points.begin()) {
    return RocPoint{std::nextafter(beyond->threshold, std::numeric_limits<double>::infinity()), 0, 0};
  }
  return *(beyond - 1);
}

std::vector<RocPoint> Thinned(const std::vector<RocPoint>& points, int64_t count) {
  if (static_cast<int64_t>(points.size()) <= count) return points;
  const auto position = [&](const RocPoint& point) {
    const RocPoint& last = points.back();
    return std::log1p(static_cast<double>(point.false_accepts)) /
               std::log1p(static_cast<double>(std::max<int64_t>(last.false_accepts, 1))) +
           Share(point.true_accepts, std::max<int64_t>(last.true_accepts, 1));
  };
  const double step = 2 / static_cast<double>(count - 2);
  std::vector<RocPoint> kept = {points.front()};
  for (size_t i = 1; i + 1 < points.size(); ++i) {
    if (position(points[i]) >= position(kept.back()) + step) kept.push_back(points[i]);
  }
  kept.push_back(points.back());
  return kept;
}

}  // namespace shardmax
