#include "worker/eval/tail_curve.h"

#include <algorithm>

#include "worker/base/status.h"
#include "worker/eval/exchange.h"

namespace shardmax {
namespace {

constexpr int32_t kBlockKeys = 2048;

// The keys [low, high] of block b, from the top.
struct Block {
  int32_t low;
  int32_t high;

  Block(int64_t b, int32_t floor)
      : low(std::max(floor, static_cast<int32_t>(kScoreOne - (b + 1) * kBlockKeys + 1))),
        high(static_cast<int32_t>(kScoreOne - b * kBlockKeys)) {}
};

int64_t NumBlocks(int32_t floor) {
  return (int64_t{kScoreOne} - floor) / kBlockKeys + 1;
}

// The counts of each block, genuine and impostor in turn.
std::vector<int64_t> BlockSums(const ScoreCounts& genuine, const ScoreCounts& impostor) {
  std::vector<int64_t> sums;
  for (int64_t b = 0; b < NumBlocks(genuine.floor()); ++b) {
    const Block block(b, genuine.floor());
    for (const ScoreCounts* counts : {&genuine, &impostor}) {
      int64_t sum = 0;
      for (int32_t key = block.low; key <= block.high; ++key) sum += counts->at(key);
      sums.push_back(sum);
    }
  }
  return sums;
}

}  // namespace

absl::StatusOr<TailCurve> TailCurve::Make(Communicator& comm, const ScoreCounts& genuine, const ScoreCounts& impostor,
                                          const PairCounts& pairs) {
  TailCurve curve(genuine, impostor, pairs);
  std::vector<int64_t> sums = BlockSums(genuine, impostor);
  SHARDMAX_RETURN_IF_ERROR(SumCounts(comm, sums));
  RocPoint total;
  for (int64_t b = 0; b < static_cast<int64_t>(sums.size()) / 2; ++b) {
    total.threshold = ScoreOfKey(Block(b, genuine.floor()).low);
    total.true_accepts += sums[2 * b];
    total.false_accepts += sums[2 * b + 1];
    curve.blocks_.push_back(total);
  }
  return curve;
}

bool TailCurve::Reaches(double rate) const {
  // It ends with an impostor too many, or with the last pair of all.
  return genuine_->floor() == -kScoreOne || impostors() > MostFalseAccepts(rate, pairs_.impostor);
}

absl::StatusOr<std::vector<std::optional<RocPoint>>> TailCurve::AtRates(Communicator& comm,
                                                                        std::span<const double> rates) const {
  // The block in which the accepted impostors pass the limit of each rate, key by key.
  std::vector<int64_t> blocks;
  std::vector<int64_t> counts;
  for (const double rate : rates) {
    const int64_t most = MostFalseAccepts(rate, pairs_.impostor);
    const auto beyond = std::partition_point(blocks_.begin(), blocks_.end(),
                                             [&](const RocPoint& point) { return point.false_accepts <= most; });
    blocks.push_back(std::min<int64_t>(beyond - blocks_.begin(), static_cast<int64_t>(blocks_.size()) - 1));
    const Block block(blocks.back(), genuine_->floor());
    for (int32_t key = block.high; key >= block.low; --key) {
      counts.push_back(genuine_->at(key));
      counts.push_back(impostor_->at(key));
    }
  }
  SHARDMAX_RETURN_IF_ERROR(SumCounts(comm, counts));

  std::vector<std::optional<RocPoint>> points;
  const int64_t* next = counts.data();
  for (size_t r = 0; r < rates.size(); ++r) {
    const int64_t most = MostFalseAccepts(rates[r], pairs_.impostor);
    const Block block(blocks[r], genuine_->floor());
    RocPoint point = blocks[r] > 0 ? blocks_[blocks[r] - 1] : RocPoint{ScoreOfKey(kScoreOne + 1), 0, 0};
    bool passed = false;
    for (int32_t key = block.high; key >= block.low; --key, next += 2) {
      passed = passed || point.false_accepts + next[1] > most;
      if (!passed) point = {ScoreOfKey(key), point.true_accepts + next[0], point.false_accepts + next[1]};
    }
    points.push_back(most > 0 ? std::optional(point) : std::nullopt);
  }
  return points;
}

}  // namespace shardmax
