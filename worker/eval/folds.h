// Accuracy by cross-validation: each fold is judged with the threshold that is best on the others.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace shardmax {

struct FoldResult {
  double threshold = 0;
  double accuracy = 0;  // Share of the fold's pairs that are judged rightly.
};

// Pair p has scores[p], and is genuine where genuine[p] is not 0. Fold k is BalancedPart(pairs, k, folds).
//
// The threshold of a fold lies halfway between two neighbouring scores of the other folds, or just above or at the end
// of all, where most pairs of the other folds are judged rightly; the highest of several. Requires 2 <= folds <= pairs.
std::vector<FoldResult> CrossValidate(std::span<const double> scores, std::span<const uint8_t> genuine, int folds);

}  // namespace shardmax
