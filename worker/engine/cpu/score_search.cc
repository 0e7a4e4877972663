#include "worker/engine/cpu/score_search.h"

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

}  // namespace HWY_NAMESPACE
}  // namespace shardmax
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardmax {
namespace {

HWY_EXPORT(FindAtLeast);

}  // namespace

int64_t FindAtLeast(const float* scores, int64_t count, float floor, int32_t* places) {
  return HWY_DYNAMIC_DISPATCH(FindAtLeast)(scores, count, floor, places);
}

}  // namespace shardmax
#endif  // HWY_ONCE
