#include "worker/engine/cpu/score_search.h"

#include <algorithm>

// Highway compiles the rest of this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/engine/cpu/score_search.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace shardmax {
namespace HWY_NAMESPACE {  // NOLINT(modernize-concat-nested-namespaces): opened by macro.

namespace hn = hwy::HWY_NAMESPACE;

// `places` has a vector's room beyond the last.
using Floats = hn::CappedTag<float, kScoreSearchRoom>;
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

int64_t FindAtLeastEither(const float* scores, int64_t count, float floor, const float* floors, int32_t* places) {
  const Floats d;
  const Ints di;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto least = hn::Set(d, floor);
  int64_t found = 0;
  const auto is_high = [&](int64_t i) HWY_ATTR {
    return hn::Ge(hn::LoadU(d, scores + i), hn::Min(least, hn::LoadU(d, floors + i)));
  };
  const auto store = [&](int64_t i) HWY_ATTR {
    const auto mask = hn::RebindMask(di, is_high(i));
    found += static_cast<int64_t>(hn::CompressStore(hn::Iota(di, static_cast<int32_t>(i)), mask, di, places + found));
  };
  int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    const auto low = hn::Or(is_high(i), is_high(i + lanes));
    const auto high = hn::Or(is_high(i + 2 * lanes), is_high(i + 3 * lanes));
    if (hn::AllFalse(d, hn::Or(low, high))) continue;
    for (int64_t part = 0; part < 4; ++part) store(i + part * lanes);
  }
  for (; i < count; ++i) {
    if (scores[i] >= std::min(floor, floors[i])) places[found++] = static_cast<int32_t>(i);
  }
  return found;
}

int32_t PlaceOfWorst(const float* scores, const int32_t* ids, int64_t count) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t vectors_end = count - count % lanes;
  auto least_lanes = hn::Set(d, scores[0]);
  for (int64_t i = 0; i < vectors_end; i += lanes) least_lanes = hn::Min(least_lanes, hn::LoadU(d, scores + i));
  float least = hn::GetLane(hn::MinOfLanes(d, least_lanes));
  for (int64_t i = vectors_end; i < count; ++i) least = std::min(least, scores[i]);
  int64_t worst = -1;
  const auto look = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (scores[i] == least && (worst < 0 || ids[i] > ids[worst])) worst = i;
    }
  };
  const auto all_least = hn::Set(d, least);
  for (int64_t i = 0; i < vectors_end; i += lanes) {
    if (!hn::AllFalse(d, hn::Eq(hn::LoadU(d, scores + i), all_least))) look(i, i + lanes);
  }
  look(vectors_end, count);
  return static_cast<int32_t>(worst);
}

HWY_INLINE float Dot(const float* x, const float* y, int64_t count) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sum0 = hn::Zero(d);
  auto sum1 = hn::Zero(d);
  auto sum2 = hn::Zero(d);
  auto sum3 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    sum0 = hn::MulAdd(hn::LoadU(d, x + i), hn::LoadU(d, y + i), sum0);
    sum1 = hn::MulAdd(hn::LoadU(d, x + i + lanes), hn::LoadU(d, y + i + lanes), sum1);
    sum2 = hn::MulAdd(hn::LoadU(d, x + i + 2 * lanes), hn::LoadU(d, y + i + 2 * lanes), sum2);
    sum3 = hn::MulAdd(hn::LoadU(d, x + i + 3 * lanes), hn::LoadU(d, y + i + 3 * lanes), sum3);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3))));
  for (; i < count; ++i) sum += x[i] * y[i];
  return sum;
}

void DotRows(const float* x, int64_t dim, const float* rows, const int32_t* places, int64_t count, float* dots) {
  for (int64_t i = 0; i < count; ++i) dots[i] = Dot(x, rows + places[i] * dim, dim);
}

}  // namespace HWY_NAMESPACE
}  // namespace shardmax
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardmax {
namespace {

HWY_EXPORT(FindAtLeast);
HWY_EXPORT(FindAtLeastEither);
HWY_EXPORT(PlaceOfWorst);
HWY_EXPORT(DotRows);

}  // namespace

int64_t FindAtLeast(const float* scores, int64_t count, float floor, int32_t* places) {
  return HWY_DYNAMIC_DISPATCH(FindAtLeast)(scores, count, floor, places);
}

int64_t FindAtLeastEither(const float* scores, int64_t count, float floor, const float* floors, int32_t* places) {
  return HWY_DYNAMIC_DISPATCH(FindAtLeastEither)(scores, count, floor, floors, places);
}

int32_t PlaceOfWorst(const float* scores, const int32_t* ids, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(PlaceOfWorst)(scores, ids, count);
}

void DotRows(std::span<const float> x, const float* rows, std::span<const int32_t> places, float* dots) {
  HWY_DYNAMIC_DISPATCH(DotRows)
  (x.data(), static_cast<int64_t>(x.size()), rows, places.data(), static_cast<int64_t>(places.size()), dots);
}

}  // namespace shardmax
#endif  // HWY_ONCE
