// The upper end of a ROC curve, from the counts of all ranks.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/comm/communicator.h"
#include "worker/eval/error_rates.h"
#include "worker/eval/score_counts.h"

namespace shardmax {

// What a threshold accepts, over all ranks, for thresholds from the floor of the counts on. Borrows the counts.
class TailCurve {
 public:
  // `genuine` and `impostor` are those of this rank, of one floor, equal on all ranks; `pairs` counts the pairs of all
  // ranks, those below the floor too. Collective.
  static absl::StatusOr<TailCurve> Make(Communicator& comm, const ScoreCounts& genuine, const ScoreCounts& impostor,
                                        const PairCounts& pairs);

  // The impostor pairs from the floor on.
  int64_t impostors() const { return blocks_.empty() ? 0 : blocks_.back().false_accepts; }

  // Whether the point at `rate` lies on the curve, and not below its end.
  bool Reaches(double rate) const;

  // For each rate what PointAtRate gives on the whole curve. Requires Reaches(rate) for each. Collective.
  absl::StatusOr<std::vector<std::optional<RocPoint>>> AtRates(Communicator& comm, std::span<const double> rates) const;

  // Points of the curve, by falling threshold, some 4000 a unit of score.
  const std::vector<RocPoint>& points() const { return blocks_; }

 private:
  TailCurve(const ScoreCounts& genuine, const ScoreCounts& impostor, const PairCounts& pairs)
      : genuine_(&genuine), impostor_(&impostor), pairs_(pairs) {}

  const ScoreCounts* genuine_;
  const ScoreCounts* impostor_;
  PairCounts pairs_;
  // Keys are cut into blocks, from kScoreOne down. blocks_[b] is what the lowest key of block b accepts.
  std::vector<RocPoint> blocks_;
};

}  // namespace shardmax
