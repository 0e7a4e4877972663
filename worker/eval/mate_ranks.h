// At which rank each probe finds each other image of its identity among the distractors.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/eval/high_scores.h"
#include "worker/eval/lineup.h"
#include "worker/eval/pair_scan.h"
#include "worker/eval/score_counts.h"

namespace shardmax {

// The scores of the probes of one rank with their mates, the other images of their identities. Visits the pairs of the
// probes with themselves.
class MateScores final : public PairVisitor {
 public:
  // Borrows `lineup`.
  explicit MateScores(const Lineup& lineup);

  void Visit(int thread, int64_t probe, int64_t first_gallery, std::span<const float> scores) override;
  absl::Status BeginProbes(Range probes) override;
  // Sorts the scores of each probe, rising.
  absl::Status EndProbes(Range probes) override;

  // Rising. Empty for probes of other ranks.
  std::span<const float> of(int64_t probe) const;
  // Where of(probe) lies among the scores of all probes of this rank, which are `size` in all.
  int64_t first(int64_t probe) const { return first_[probe]; }
  int64_t size() const { return static_cast<int64_t>(scores_.size()); }
  std::span<const float> all() const { return scores_; }

 private:
  const Lineup* lineup_;
  std::vector<int64_t> first_;  // Of each probe of this rank, else -1.
  std::vector<float> scores_;
};

// Counts, for each mate, the distractors that score at least as high, in each step of the gallery's growth. Visits the
// pairs of probes and distractors. Also counts the distractors' scores from a floor on.
class DistractorCounts final : public PairVisitor {
 public:
  // Borrows both. 4 bytes for each mate and gallery size.
  static absl::StatusOr<DistractorCounts> Make(const Lineup& lineup, const MateScores& mates, int32_t floor,
                                               int threads);

  void Visit(int thread, int64_t probe, int64_t first_gallery, std::span<const float> scores) override;

  const ScoreCounts& impostor() const { return impostor_; }

  // [gallery sizes, max_rank]: how many mates of this rank's probes are found at rank 1, 2, … among the first
  // gallery_sizes[s] distractors. A distractor of the same score comes before the mate.
  std::vector<int64_t> MatesAtRank(int64_t max_rank) const;

 private:
  DistractorCounts(const Lineup& lineup, const MateScores& mates, ScoreCounts impostor, int threads);
  void CountAboveMates(int64_t probe, int64_t step, std::span<const float> found);

  const Lineup* lineup_;
  const MateScores* mates_;
  ScoreCounts impostor_;
  std::vector<HighScores> high_;  // Of each thread.
  // [mates, gallery sizes]: distractors of that step of growth whose score is at least that of this mate, and less than
  // that of the probe's next.
  std::vector<int32_t> beaten_;
};

}  // namespace shardmax
