#include "worker/eval/tail_floor.h"

#include <algorithm>

#include "worker/base/status.h"
#include "worker/data/permutation.h"
#include "worker/eval/score_counts.h"

namespace shardmax {
namespace {

constexpr int64_t kSampleRows = 512;
// The floor leaves room for so many times the rate, and for so many pairs of the sample, that it is rarely too high.
constexpr double kMargin = 4;
constexpr int64_t kLeastPairs = 100;

struct SampledRows {
  std::vector<int64_t> positions;
  std::vector<float> directions;  // [positions, dim]
};

absl::StatusOr<SampledRows> SampleRows(const RowList& list, uint32_t seed) {
  const int64_t dim = list.embeddings->dim();
  const Permutation order(list.size(), seed, 0);
  SampledRows sample;
  for (int64_t i = 0; i < std::min(kSampleRows, list.size()); ++i) sample.positions.push_back(order(i));
  sample.directions.resize(sample.positions.size() * static_cast<size_t>(dim));
  for (size_t i = 0; i < sample.positions.size(); ++i) {
    const std::span<float> row = std::span(sample.directions).subspan(i * dim, static_cast<size_t>(dim));
    SHARDMAX_RETURN_IF_ERROR(list.embeddings->ReadDirection(list.rows[sample.positions[i]], row));
  }
  return sample;
}

float Product(const float* a, const float* b, int64_t dim) {
  constexpr int64_t kSums = 16;
  float sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= dim; i += kSums) {
    for (int64_t k = 0; k < kSums; ++k) sums[k] += a[i + k] * b[i + k];
  }
  float sum = 0;
  for (; i < dim; ++i) sum += a[i] * b[i];
  for (const float part : sums) sum += part;
  return sum;
}

}  // namespace

absl::StatusOr<int32_t> GuessFloor(const PairScan::Options& lists, double rate,
                                   const std::function<bool(int64_t probe, int64_t gallery)>& is_impostor) {
  const int64_t dim = lists.probes.embeddings->dim();
  SHARDMAX_ASSIGN_OR_RETURN(const SampledRows probes, SampleRows(lists.probes, 1));
  SHARDMAX_ASSIGN_OR_RETURN(const SampledRows gallery, SampleRows(lists.gallery, 2));
  std::vector<float> scores;
  for (size_t p = 0; p < probes.positions.size(); ++p) {
    for (size_t g = 0; g < gallery.positions.size(); ++g) {
      if (!is_impostor(probes.positions[p], gallery.positions[g])) continue;
      scores.push_back(Product(probes.directions.data() + p * dim, gallery.directions.data() + g * dim, dim));
    }
  }
  const auto size = static_cast<int64_t>(scores.size());
  const int64_t rank = std::max(kLeastPairs, static_cast<int64_t>(kMargin * rate * static_cast<double>(size)));
  if (rank >= size) return -kScoreOne;
  std::nth_element(scores.begin(), scores.begin() + rank, scores.end(), std::greater<>());
  return ScoreKey(scores[rank]);
}

absl::StatusOr<int32_t> AgreeOnFloor(Communicator& comm, const PairScan::Options& lists, double rate,
                                     const std::function<bool(int64_t probe, int64_t gallery)>& is_impostor) {
  absl::StatusOr<int32_t> floor = 0;
  if (comm.rank() == 0) floor = GuessFloor(lists, rate, is_impostor);
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm, floor.status()));
  SHARDMAX_RETURN_IF_ERROR(comm.Broadcast(std::as_writable_bytes(std::span(&*floor, 1)), 0));
  return *floor;
}

}  // namespace shardmax
