#include "worker/head/nearest_panel.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "worker/base/status.h"
#include "worker/engine/cpu/score_search.h"

namespace shardmax {
namespace {

constexpr int64_t kChunk = 256;
constexpr float kNoFloor = -std::numeric_limits<float>::infinity();

// Ascending where scores descend, then where ids ascend.
uint64_t KeyOf(float score, int32_t id) {
  const auto bits = std::bit_cast<uint32_t>(score + 0.0F);  // -0 is 0.
  const uint32_t ascending = (bits >> 31U) != 0 ? ~bits : bits | 0x80000000U;
  return static_cast<uint64_t>(~ascending) << 32U | static_cast<uint32_t>(id);
}

float ScoreOf(uint64_t key) {
  const uint32_t ascending = ~static_cast<uint32_t>(key >> 32U);
  return std::bit_cast<float>((ascending >> 31U) != 0 ? ascending & 0x7FFFFFFFU : ~ascending);
}

}  // namespace

absl::StatusOr<NearestPanel> NearestPanel::Make(int64_t rows, int64_t k, int64_t tile) {
  NearestPanel panel;
  panel.k_ = k;
  panel.room_ = 2 * k + tile;
  SHARDMAX_ASSIGN_OR_RETURN(panel.keys_, AlignedBuffer<uint64_t>::Allocate(rows * panel.room_));
  SHARDMAX_ASSIGN_OR_RETURN(panel.counts_, AlignedBuffer<int64_t>::Allocate(rows));
  SHARDMAX_ASSIGN_OR_RETURN(panel.floors_, AlignedBuffer<float>::Allocate(rows));
  panel.Clear();
  return panel;
}

void NearestPanel::Clear() {
  std::ranges::fill(counts_.span(), 0);
  std::ranges::fill(floors_.span(), kNoFloor);
}

std::span<uint64_t> NearestPanel::CandidatesOf(int64_t row) {
  return {keys_.data() + row * room_, static_cast<size_t>(counts_.data()[row])};
}

void NearestPanel::Prune(int64_t row) {
  const std::span<uint64_t> candidates = CandidatesOf(row);
  std::nth_element(candidates.begin(), candidates.begin() + (k_ - 1), candidates.end());
  floors_.data()[row] = ScoreOf(candidates[static_cast<size_t>(k_ - 1)]);
  counts_.data()[row] = k_;
}

void NearestPanel::Add(int64_t row, std::span<const float> scores, std::span<const int32_t> ids, int32_t self) {
  std::array<int32_t, kChunk + kScoreSearchRoom> places;
  for (size_t first = 0; first < scores.size(); first += kChunk) {
    const std::span<const float> part = scores.subspan(first, std::min<size_t>(kChunk, scores.size() - first));
    const int64_t found =
        FindAtLeast(part.data(), static_cast<int64_t>(part.size()), floors_.data()[row], places.data());
    int64_t& count = counts_.data()[row];
    for (int64_t i = 0; i < found; ++i) {
      const int32_t id = ids[first + static_cast<size_t>(places[static_cast<size_t>(i)])];
      if (id < 0 || id == self) continue;
      keys_.data()[row * room_ + count++] = KeyOf(part[static_cast<size_t>(places[static_cast<size_t>(i)])], id);
    }
  }
  if (counts_.data()[row] >= 2 * k_) Prune(row);
}

void NearestPanel::Take(int64_t row, std::span<int32_t> ids) {
  const std::span<uint64_t> candidates = CandidatesOf(row);
  std::partial_sort(candidates.begin(), candidates.begin() + k_, candidates.end());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(candidates[i] & 0xFFFFFFFFU);
}

}  // namespace shardmax
