#include "worker/eval/score_kernels.h"

// Highway compiles the rest of this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/eval/score_kernels.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace shardmax {
namespace HWY_NAMESPACE {  // NOLINT(modernize-concat-nested-namespaces): opened by macro.

namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes: `out` has that much room beyond the last score.
using Floats = hn::CappedTag<float, 16>;

int64_t CollectAtLeast(const float* scores, int64_t count, float floor, float* out) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto least = hn::Set(d, floor);
  int64_t found = 0;
  int64_t i = 0;
  // Few scores are that high: four vectors are dismissed at once.
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    const auto a = hn::LoadU(d, scores + i);
    const auto b = hn::LoadU(d, scores + i + lanes);
    const auto c = hn::LoadU(d, scores + i + 2 * lanes);
    const auto e = hn::LoadU(d, scores + i + 3 * lanes);
    if (hn::AllFalse(d, hn::Ge(hn::Max(hn::Max(a, b), hn::Max(c, e)), least))) continue;
    for (const auto& scores_of_vector : {a, b, c, e}) {
      found +=
          static_cast<int64_t>(hn::CompressStore(scores_of_vector, hn::Ge(scores_of_vector, least), d, out + found));
    }
  }
  for (; i < count; ++i) {
    if (scores[i] >= floor) out[found++] = scores[i];
  }
  return found;
}

}  // namespace HWY_NAMESPACE
}  // namespace shardmax
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardmax {
namespace {

HWY_EXPORT(CollectAtLeast);

}  // namespace

int64_t CollectAtLeast(const float* scores, int64_t count, float floor, float* out) {
  return HWY_DYNAMIC_DISPATCH(CollectAtLeast)(scores, count, floor, out);
}

}  // namespace shardmax
#endif  // HWY_ONCE
