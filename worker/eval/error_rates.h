// Rates of a recogniser that accepts a pair whose score is at or above a threshold.
//
// False accept rate (FAR): the share of impostor pairs that it accepts. True accept rate (TAR): that of genuine pairs.
// Pairs of equal score are accepted together, so a curve has one vertex for each distinct score.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace shardmax {

// What a threshold accepts.
struct RocPoint {
  double threshold = 0;
  int64_t true_accepts = 0;
  int64_t false_accepts = 0;

  friend bool operator==(const RocPoint&, const RocPoint&) = default;
};

struct PairCounts {
  int64_t genuine = 0;
  int64_t impostor = 0;
};

// The vertices of a curve, by falling threshold, without the one that accepts nothing. The last accepts everything.
struct RocCurve {
  PairCounts pairs;
  std::vector<RocPoint> points;
};

// Of all scores, in any order; none is NaN.
RocCurve MakeRocCurve(std::vector<double> genuine, std::vector<double> impostor);

// Area under TAR over FAR: the chance that a genuine pair scores above an impostor pair, ties counted half. Requires a
// pair of each kind.
double AreaUnderCurve(const RocCurve& curve);

// The rate at which FAR = 1 - TAR, on straight lines between the vertices. Requires a pair of each kind.
double EqualErrorRate(const RocCurve& curve);

// The largest k with k / impostor_pairs <= far, in float64. 0 means that so small a rate cannot be told from zero with
// so few pairs. Requires impostor_pairs >= 1 and far in (0, 1].
int64_t MostFalseAccepts(double far, int64_t impostor_pairs);

// The last vertex of at most MostFalseAccepts; (threshold above all scores, 0, 0) if already the first has more. None
// if the rate cannot be resolved.
std::optional<RocPoint> PointAtRate(const RocCurve& curve, double far);

// At most `count` (3 or more) of the points, the first and the last among them, spread evenly over true accepts and the
// logarithm of false accepts: for pictures.
std::vector<RocPoint> Thinned(const std::vector<RocPoint>& points, int64_t count);

}  // namespace shardmax
