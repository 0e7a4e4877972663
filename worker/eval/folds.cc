#include "worker/eval/folds.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "worker/base/shard_range.h"

namespace shardmax {
namespace {

struct Pairs {
  std::span<const double> scores;
  std::span<const uint8_t> genuine;
};

// The best threshold on the pairs outside of `fold`. `order` sorts all pairs by falling score.
double BestThreshold(const Pairs& pairs, std::span<const int64_t> order, Range fold) {
  // The accepted pairs grow one by one; a threshold fits where two neighbours differ. What is judged rightly is counted
  // against accepting nothing, so the true number differs by a constant.
  int64_t gain = 0;
  int64_t best_gain = 0;
  double best = std::numeric_limits<double>::infinity();  // Until the first score is known.
  double last = std::numeric_limits<double>::infinity();
  for (const int64_t pair : order) {
    if (fold.contains(pair)) continue;
    const double score = pairs.scores[pair];
    if (best == std::numeric_limits<double>::infinity() && last == best) best = std::nextafter(score, last);
    if (score != last && gain > best_gain) {
      best_gain = gain;
      best = score + (last - score) / 2;
    }
    gain += pairs.genuine[pair] != 0 ? 1 : -1;
    last = score;
  }
  return gain > best_gain ? last : best;
}

double Accuracy(const Pairs& pairs, Range fold, double threshold) {
  int64_t right = 0;
  for (int64_t pair = fold.first; pair < fold.end(); ++pair) {
    right += (pairs.scores[pair] >= threshold) == (pairs.genuine[pair] != 0) ? 1 : 0;
  }
  return static_cast<double>(right) / static_cast<double>(fold.count);
}

}  // namespace

std::vector<FoldResult> CrossValidate(std::span<const double> scores, std::span<const uint8_t> genuine, int folds) {
  const Pairs pairs = {scores, genuine};
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  std::vector<FoldResult> results;
  for (int k = 0; k < folds; ++k) {
    const Range fold = BalancedPart(static_cast<int64_t>(scores.size()), k, folds);
    const double threshold = BestThreshold(pairs, order, fold);
    results.push_back({threshold, Accuracy(pairs, fold, threshold)});
  }
  return results;
}

}  // namespace shardmax
