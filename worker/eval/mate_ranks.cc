#include "worker/eval/mate_ranks.h"

#include <algorithm>
#include <utility>

#include "worker/base/status.h"

namespace shardmax {

MateScores::MateScores(const Lineup& lineup) : lineup_(&lineup), first_(lineup.groups.size(), -1) {}

absl::Status MateScores::BeginProbes(Range probes) {
  for (int64_t probe = probes.first; probe < probes.end(); ++probe) {
    first_[probe] = size();
    scores_.resize(scores_.size() + static_cast<size_t>(lineup_->groups[probe].count - 1));
  }
  return absl::OkStatus();
}

void MateScores::Visit(int /*thread*/, int64_t probe, int64_t first_gallery, std::span<const float> scores) {
  const Range group = lineup_->groups[probe];
  const int64_t end = std::min(group.end(), first_gallery + static_cast<int64_t>(scores.size()));
  for (int64_t mate = std::max(group.first, first_gallery); mate < end; ++mate) {
    if (mate == probe) continue;
    const int64_t index = mate - group.first - (mate > probe ? 1 : 0);
    scores_[first_[probe] + index] = scores[mate - first_gallery];
  }
}

absl::Status MateScores::EndProbes(Range probes) {
  for (int64_t probe = probes.first; probe < probes.end(); ++probe) {
    const auto begin = scores_.begin() + first_[probe];
    std::sort(begin, begin + (lineup_->groups[probe].count - 1));
  }
  return absl::OkStatus();
}

std::span<const float> MateScores::of(int64_t probe) const {
  if (first_[probe] < 0) return {};
  return std::span(scores_).subspan(static_cast<size_t>(first_[probe]),
                                    static_cast<size_t>(lineup_->groups[probe].count - 1));
}

absl::StatusOr<DistractorCounts> DistractorCounts::Make(const Lineup& lineup, const MateScores& mates, int32_t floor,
                                                        int threads) {
  SHARDMAX_ASSIGN_OR_RETURN(ScoreCounts impostor, ScoreCounts::Make(floor));
  return DistractorCounts(lineup, mates, std::move(impostor), threads);
}

DistractorCounts::DistractorCounts(const Lineup& lineup, const MateScores& mates, ScoreCounts impostor, int threads)
    : lineup_(&lineup),
      mates_(&mates),
      impostor_(std::move(impostor)),
      high_(static_cast<size_t>(threads)),
      beaten_(static_cast<size_t>(mates.size()) * lineup.gallery_sizes.size()) {}

void DistractorCounts::Visit(int thread, int64_t probe, int64_t first_gallery, std::span<const float> scores) {
  HighScores& high = high_[thread];
  impostor_.Add(high.AtLeast(impostor_.lowest_score(), scores));

  // The tile may lie in several steps of the gallery's growth.
  const std::vector<int64_t>& sizes = lineup_->gallery_sizes;
  int64_t step = std::upper_bound(sizes.begin(), sizes.end(), first_gallery) - sizes.begin();
  int64_t done = 0;
  while (done < static_cast<int64_t>(scores.size())) {
    const int64_t end = std::min(static_cast<int64_t>(scores.size()), sizes[step] - first_gallery);
    const std::span<const float> part = scores.subspan(static_cast<size_t>(done), static_cast<size_t>(end - done));
    CountAboveMates(probe, step, high.AtLeast(mates_->of(probe).front(), part));
    done = end;
    ++step;
  }
}

void DistractorCounts::CountAboveMates(int64_t probe, int64_t step, std::span<const float> found) {
  const std::span<const float> mates = mates_->of(probe);
  const auto steps = static_cast<int64_t>(lineup_->gallery_sizes.size());
  for (const float score : found) {
    const int64_t highest = std::upper_bound(mates.begin(), mates.end(), score) - mates.begin() - 1;
    ++beaten_[(mates_->first(probe) + highest) * steps + step];
  }
}

std::vector<int64_t> DistractorCounts::MatesAtRank(int64_t max_rank) const {
  const auto steps = static_cast<int64_t>(lineup_->gallery_sizes.size());
  std::vector<int64_t> at_rank(static_cast<size_t>(steps * max_rank));
  std::vector<int64_t> above(static_cast<size_t>(steps));
  for (int64_t probe = 0; probe < static_cast<int64_t>(lineup_->groups.size()); ++probe) {
    const auto mates = static_cast<int64_t>(mates_->of(probe).size());
    std::fill(above.begin(), above.end(), 0);
    // From the highest mate down: what beats it beats the lower ones too.
    for (int64_t mate = mates - 1; mate >= 0; --mate) {
      int64_t rank = 1;
      for (int64_t step = 0; step < steps; ++step) {
        above[step] += beaten_[(mates_->first(probe) + mate) * steps + step];
        rank += above[step];
        if (rank <= max_rank) ++at_rank[step * max_rank + rank - 1];
      }
    }
  }
  return at_rank;
}

}  // namespace shardmax
