#include "worker/head/nearest_sets.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "worker/base/status.h"
#include "worker/engine/cpu/score_search.h"

namespace shardmax {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

absl::StatusOr<NearestSets> NearestSets::Make(MatrixView<int32_t> ids, int64_t tile_rows) {
  NearestSets sets;
  sets.ids_ = ids;
  sets.tile_rows_ = tile_rows;
  SHARDMAX_ASSIGN_OR_RETURN(sets.cosines_, AlignedBuffer<float>::Allocate(ids.rows * ids.cols));
  SHARDMAX_ASSIGN_OR_RETURN(sets.counts_, AlignedBuffer<int32_t>::Allocate(ids.rows));
  SHARDMAX_ASSIGN_OR_RETURN(sets.worst_, AlignedBuffer<int32_t>::Allocate(ids.rows));
  SHARDMAX_ASSIGN_OR_RETURN(sets.floors_, AlignedBuffer<float>::Allocate(ids.rows));
  std::ranges::fill(sets.floors_.span(), -kInfinity);
  sets.locks_ = std::make_unique<std::mutex[]>(static_cast<size_t>((ids.rows + tile_rows - 1) / tile_rows));
  return sets;
}

void NearestSets::Floors(int64_t tile, float* floors) {
  const int64_t first = tile * tile_rows_;
  const int64_t count = std::min(tile_rows_, ids_.rows - first);
  const auto lock = Lock(tile);
  std::copy_n(floors_.data() + first, count, floors);
  std::fill(floors + count, floors + tile_rows_, kInfinity);
}

void NearestSets::Take(int64_t row, float cosine, int32_t id) {
  float* cosines = cosines_.data() + row * ids_.cols;
  int32_t* ids = ids_.row(row).data();
  int32_t& count = counts_.data()[row];
  int32_t& worst = worst_.data()[row];
  const bool full = count == ids_.cols;
  if (full && cosine == cosines[worst] && id > ids[worst]) return;
  const int32_t place = full ? worst : count++;
  cosines[place] = cosine;
  ids[place] = id;
  if (count < ids_.cols) return;
  worst = PlaceOfWorst(cosines, ids, count);
  floors_.data()[row] = cosines[worst];
}

void NearestSets::Sort(int64_t row) {
  std::vector<std::pair<float, int32_t>> sorted;
  const std::span<int32_t> ids = ids_.row(row);
  for (size_t i = 0; i < ids.size(); ++i) {
    sorted.emplace_back(-cosines_.data()[row * ids_.cols + static_cast<int64_t>(i)], ids[i]);
  }
  std::ranges::sort(sorted);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = sorted[i].second;
}

}  // namespace shardmax
