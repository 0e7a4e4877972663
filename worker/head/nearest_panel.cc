#include "worker/head/nearest_panel.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "worker/base/status.h"

// Highway compiles the rest of this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/head/nearest_panel.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace shardmax {
namespace HWY_NAMESPACE {  // NOLINT(modernize-concat-nested-namespaces): opened by macro.

namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes: `places` has that much room beyond the last.
using Floats = hn::CappedTag<float, 16>;
using Ints = hn::RebindToSigned<Floats>;

int64_t FindAtLeast(const float* scores, int64_t count, float floor, int32_t* places) {
  const Floats d;
  const Ints di;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto least = hn::Set(d, floor);
  int64_t found = 0;
  const auto store = [&](int64_t i) HWY_ATTR {
    const auto mask = hn::RebindMask(di, hn::Ge(hn::LoadU(d, scores + i), least));
    found += static_cast<int64_t>(hn::CompressStore(hn::Iota(di, static_cast<int32_t>(i)), mask, di, places + found));
  };
  int64_t i = 0;
  // Few scores are that high: four vectors are dismissed at once.
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    const auto a = hn::LoadU(d, scores + i);
    const auto b = hn::LoadU(d, scores + i + lanes);
    const auto c = hn::LoadU(d, scores + i + 2 * lanes);
    const auto e = hn::LoadU(d, scores + i + 3 * lanes);
    if (hn::AllFalse(d, hn::Ge(hn::Max(hn::Max(a, b), hn::Max(c, e)), least))) continue;
    for (int64_t part = 0; part < 4; ++part) store(i + part * lanes);
  }
  for (; i < count; ++i) {
    if (scores[i] >= floor) places[found++] = static_cast<int32_t>(i);
  }
  return found;
}

}  // namespace HWY_NAMESPACE
}  // namespace shardmax
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardmax {
namespace {

HWY_EXPORT(FindAtLeast);

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

int64_t FindAtLeast(const float* scores, int64_t count, float floor, int32_t* places) {
  return HWY_DYNAMIC_DISPATCH(FindAtLeast)(scores, count, floor, places);
}

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
  std::array<int32_t, kChunk + 16> places;
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
#endif  // HWY_ONCE
