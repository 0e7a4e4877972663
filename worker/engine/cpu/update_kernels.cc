#include <algorithm>

#include "worker/engine/cpu/tile_kernels.h"

// Highway compiles the rest of this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/engine/cpu/update_kernels.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace shardmax {
namespace HWY_NAMESPACE {  // NOLINT(modernize-concat-nested-namespaces): opened by macro.

#include "worker/engine/cpu/vector_ops-inl.h"
#include "worker/optim/update_rule-inl.h"

// Calls update(weight, gradient, first, second) on whole vectors, the last one padded.
template <class Update>
HWY_INLINE void ForEachVector(const float* gradients, float along, float inverse_norm, int64_t n, float* weights,
                              float* first, float* second, const Update& update) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto minus_along = hn::Set(d, -along);
  const auto scale = hn::Set(d, inverse_norm);  // Not multiplied with `along`: that overflows for tiny weights.
  const auto step = [&](const float* g, float* w, float* m, float* v) HWY_ATTR {
    const auto weight = hn::LoadU(d, w);
    auto first_moment = m == nullptr ? hn::Zero(d) : hn::LoadU(d, m);
    auto second_moment = v == nullptr ? hn::Zero(d) : hn::LoadU(d, v);
    const auto gradient = hn::MulAdd(minus_along, hn::Mul(scale, weight), hn::LoadU(d, g));
    hn::StoreU(update(weight, gradient, first_moment, second_moment), d, w);
    if (m != nullptr) hn::StoreU(first_moment, d, m);
    if (v != nullptr) hn::StoreU(second_moment, d, v);
  };
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    step(gradients + i, weights + i, first == nullptr ? nullptr : first + i, second == nullptr ? nullptr : second + i);
  }
  if (i == n) return;
  const int64_t rest = n - i;
  HWY_ALIGN float tail[4][kColumnAlignment] = {};
  std::copy_n(gradients + i, rest, tail[0]);
  std::copy_n(weights + i, rest, tail[1]);
  if (first != nullptr) std::copy_n(first + i, rest, tail[2]);
  if (second != nullptr) std::copy_n(second + i, rest, tail[3]);
  step(tail[0], tail[1], tail[2], tail[3]);
  std::copy_n(tail[1], rest, weights + i);
  if (first != nullptr) std::copy_n(tail[2], rest, first + i);
  if (second != nullptr) std::copy_n(tail[3], rest, second + i);
}

void UpdateRow(const UpdateRule& rule, const float* gradients, float along, float inverse_norm, int64_t n,
               float* weights, float* first, float* second) {
  const VectorOps ops;
  if (rule.params.kind == OptimizerKind::kAdamW) {
    const AdamWConstants<VectorOps> k(ops, rule);
    ForEachVector(gradients, along, inverse_norm, n, weights, first, second,
                  [&](Vector w, Vector g, Vector& m, Vector& v) HWY_ATTR { return AdamWUpdate(ops, k, w, g, m, v); });
    return;
  }
  const SgdConstants<VectorOps> k(ops, rule);
  if (first == nullptr) {
    ForEachVector(gradients, along, inverse_norm, n, weights, first, second,
                  [&](Vector w, Vector g, Vector&, Vector&) HWY_ATTR { return SgdUpdate(ops, k, w, g); });
  } else if (rule.params.nesterov) {
    ForEachVector(gradients, along, inverse_norm, n, weights, first, second,
                  [&](Vector w, Vector g, Vector& m, Vector&)
                      HWY_ATTR { return SgdMomentumUpdate<true>(ops, k, w, g, m); });
  } else {
    ForEachVector(gradients, along, inverse_norm, n, weights, first, second,
                  [&](Vector w, Vector g, Vector& m, Vector&)
                      HWY_ATTR { return SgdMomentumUpdate<false>(ops, k, w, g, m); });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace shardmax
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardmax {
namespace {

HWY_EXPORT(UpdateRow);

}  // namespace

void UpdateRow(const UpdateRule& rule, const float* gradients, float along, float inverse_norm, int64_t n,
               float* weights, float* first, float* second) {
  HWY_DYNAMIC_DISPATCH(UpdateRow)(rule, gradients, along, inverse_norm, n, weights, first, second);
}

}  // namespace shardmax
#endif  // HWY_ONCE
