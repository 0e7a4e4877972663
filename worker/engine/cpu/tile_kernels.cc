#include "worker/engine/cpu/tile_kernels.h"

#include <algorithm>

#include "worker/engine/norm.h"

// Highway compiles the rest of this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/engine/cpu/tile_kernels.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// After highway.h, as Highway asks.
#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace shardmax {
namespace HWY_NAMESPACE {  // NOLINT(modernize-concat-nested-namespaces): opened by macro.

namespace hn = hwy::HWY_NAMESPACE;

#include "worker/loss/class_logit-inl.h"
#include "worker/optim/update_rule-inl.h"

// At most 16 lanes, so that a vector never passes the padding of a tile.
using Floats = hn::CappedTag<float, kColumnAlignment>;
using Ints = hn::RebindToSigned<Floats>;
using Vector = hn::Vec<Floats>;

// The Ops policy (worker/loss/portable.h) of a vector.
struct VectorOps {
  using V = Vector;
  using M = hn::Mask<Floats>;

  V Set(double x) const { return hn::Set(Floats(), static_cast<float>(x)); }
  V Add(V a, V b) const { return hn::Add(a, b); }
  V Sub(V a, V b) const { return hn::Sub(a, b); }
  V Mul(V a, V b) const { return hn::Mul(a, b); }
  V Div(V a, V b) const { return hn::Div(a, b); }
  V MulAdd(V a, V b, V c) const { return hn::MulAdd(a, b, c); }
  V Sqrt(V a) const { return hn::Sqrt(a); }
  V Exp(V a) const { return hn::Exp(Floats(), a); }
  M Gt(V a, V b) const { return hn::Gt(a, b); }
  V IfThenElse(M m, V yes, V no) const { return hn::IfThenElse(m, yes, no); }
};

// Sums of squares outside this range may have met squares that vanish or overflow in float32.
constexpr float kSmallestSafeSquare = 1e-30F;
constexpr float kLargestSafeSquare = 1e36F;

void InverseNorms(MatrixView<const float> rows, float* inverse) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t k = 0; k < rows.rows; ++k) {
    const float* row = rows.data + k * rows.cols;
    auto sum0 = hn::Zero(d);
    auto sum1 = hn::Zero(d);
    int64_t i = 0;
    for (; i + 2 * lanes <= rows.cols; i += 2 * lanes) {
      const auto x0 = hn::LoadU(d, row + i);
      const auto x1 = hn::LoadU(d, row + i + lanes);
      sum0 = hn::MulAdd(x0, x0, sum0);
      sum1 = hn::MulAdd(x1, x1, sum1);
    }
    float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
    for (; i < rows.cols; ++i) sum += row[i] * row[i];
    const bool safe = sum >= kSmallestSafeSquare && sum <= kLargestSafeSquare;
    inverse[k] = safe ? 1 / std::sqrt(sum) : static_cast<float>(InverseNorm(rows.row(k)));
  }
}

void ToBfloat16(const float* in, int64_t count, uint16_t* out) {
  const hn::RebindToUnsigned<Floats> du;
  const hn::Rebind<uint16_t, decltype(du)> du16;
  const auto lanes = static_cast<int64_t>(hn::Lanes(du));
  const auto half = hn::Set(du, 0x7FFFU);
  const auto one = hn::Set(du, 1U);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto bits = hn::BitCast(du, hn::LoadU(Floats(), in + i));
    const auto odd = hn::And(hn::ShiftRight<16>(bits), one);
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(half, odd)));
    hn::StoreU(hn::DemoteTo(du16, hn::BitCast(hn::RebindToSigned<decltype(du)>(), rounded)), du16, out + i);
  }
  for (; i < count; ++i) {
    uint32_t bits = 0;
    std::copy_n(reinterpret_cast<const unsigned char*>(in + i), sizeof(bits), reinterpret_cast<unsigned char*>(&bits));
    out[i] = static_cast<uint16_t>((bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U);
  }
}

void ScaleRows(MatrixView<float> tile, const float* factors) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t k = 0; k < tile.rows; ++k) {
    float* row = tile.data + k * tile.cols;
    const auto factor = hn::Set(d, factors[k]);
    for (int64_t b = 0; b < tile.cols; b += lanes) {
      hn::StoreU(hn::Mul(hn::LoadU(d, row + b), factor), d, row + b);
    }
  }
}

// The vector of columns from b on of AccumulateNormalizer.
void AccumulateColumns(MatrixView<const float> cosines, const ClassLogitScale& scale, const float* thresholds,
                       const RunningNormalizer& running, int64_t b) {
  const Floats d;
  const Ints di;
  const VectorOps ops;
  auto largest = hn::LoadU(d, cosines.data + b);
  for (int64_t k = 1; k < cosines.rows; ++k)
    largest = hn::Max(largest, hn::LoadU(d, cosines.data + k * cosines.cols + b));

  const auto threshold = hn::LoadU(d, thresholds + b);
  const auto old_max = hn::LoadU(d, running.max_logits + b);
  // No class has a logit below -s but by rounding. The floor keeps that of an excluded cosine, if it is the only one,
  // from becoming the maximum, against which e^z would be rounding noise instead of 0.
  const auto floor = ops.Set(-2 * scale.plain_slope);
  const auto new_max = hn::Max(old_max, hn::Max(floor, HWY_NAMESPACE::Logit(ops, scale, threshold, largest)));
  const ShiftedLogit<Vector> row = {threshold, ops.Set(scale.plain_slope), hn::Neg(new_max),
                                    ops.Set(scale.support_vector_slope),
                                    hn::Sub(ops.Set(scale.support_vector_offset), new_max)};
  auto sum = hn::Zero(d);
  auto support_vectors = hn::LoadU(di, running.support_vectors + b);
  for (int64_t k = 0; k < cosines.rows; ++k) {
    const auto cosine = hn::LoadU(d, cosines.data + k * cosines.cols + b);
    const auto is_support_vector = IsSupportVector(ops, row, cosine);
    sum = hn::Add(sum, ExpLogit(ops, row, cosine, is_support_vector));
    support_vectors = hn::Sub(support_vectors, hn::BitCast(di, hn::VecFromMask(d, is_support_vector)));
  }
  hn::StoreU(support_vectors, di, running.support_vectors + b);
  hn::StoreU(new_max, d, running.max_logits + b);

  HWY_ALIGN float rescales[kColumnAlignment];
  HWY_ALIGN float sums[kColumnAlignment];
  hn::Store(hn::Exp(d, hn::Sub(old_max, new_max)), d, rescales);
  hn::Store(sum, d, sums);
  for (size_t lane = 0; lane < hn::Lanes(d); ++lane) {
    double& total = running.sums[b + static_cast<int64_t>(lane)];
    total = total * static_cast<double>(rescales[lane]) + static_cast<double>(sums[lane]);
  }
}

void AccumulateNormalizer(MatrixView<const float> cosines, const ClassLogitScale& scale, const float* thresholds,
                          const RunningNormalizer& running) {
  for (int64_t b = 0; b < cosines.cols; b += static_cast<int64_t>(hn::Lanes(Floats()))) {
    AccumulateColumns(cosines, scale, thresholds, running, b);
  }
}

void CosineGradients(MatrixView<float> cosines, const ClassLogitScale& scale, const BackwardColumns& columns,
                     const float* inverse_norms, float* along_weights) {
  const Floats d;
  const VectorOps ops;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto plain_slope = ops.Set(scale.plain_slope);
  const auto support_vector_slope = ops.Set(scale.support_vector_slope);
  for (int64_t k = 0; k < cosines.rows; ++k) {
    float* tile_row = cosines.data + k * cosines.cols;
    const auto inverse_norm = hn::Set(d, inverse_norms[k]);
    auto along_weight = hn::Zero(d);
    for (int64_t b = 0; b < cosines.cols; b += lanes) {
      const ShiftedLogit<Vector> row = {hn::LoadU(d, columns.thresholds + b), plain_slope,
                                        hn::Neg(hn::LoadU(d, columns.shifts + b)), support_vector_slope,
                                        hn::LoadU(d, columns.support_vector_offsets + b)};
      const auto cosine = hn::LoadU(d, tile_row + b);
      const auto gradient = ClassCosineGradient(ops, row, hn::LoadU(d, columns.row_scales + b), cosine);
      const auto scaled = hn::Mul(gradient, inverse_norm);
      along_weight = hn::MulAdd(scaled, cosine, along_weight);
      hn::StoreU(scaled, d, tile_row + b);
    }
    along_weights[k] = hn::GetLane(hn::SumOfLanes(d, along_weight));
  }
}

void UpdateNearest(MatrixView<const float> cosines, int32_t first_class, float* best, int32_t* classes) {
  const Floats d;
  const Ints di;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t b = 0; b < cosines.cols; b += lanes) {
    auto best_cosine = hn::LoadU(d, best + b);
    auto best_class = hn::LoadU(di, classes + b);
    for (int64_t k = 0; k < cosines.rows; ++k) {
      const auto cosine = hn::LoadU(d, cosines.data + k * cosines.cols + b);
      const auto nearer = hn::Gt(cosine, best_cosine);
      best_cosine = hn::IfThenElse(nearer, cosine, best_cosine);
      best_class =
          hn::IfThenElse(hn::RebindMask(di, nearer), hn::Set(di, first_class + static_cast<int32_t>(k)), best_class);
    }
    hn::StoreU(best_cosine, d, best + b);
    hn::StoreU(best_class, di, classes + b);
  }
}

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

HWY_EXPORT(InverseNorms);
HWY_EXPORT(ToBfloat16);
HWY_EXPORT(ScaleRows);
HWY_EXPORT(AccumulateNormalizer);
HWY_EXPORT(CosineGradients);
HWY_EXPORT(UpdateNearest);
HWY_EXPORT(UpdateRow);

}  // namespace

std::string KernelTarget() {
  const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  return hwy::TargetName(targets & -targets);  // The lowest bit is the best target.
}

void InverseNorms(MatrixView<const float> rows, float* inverse) {
  HWY_DYNAMIC_DISPATCH(InverseNorms)(rows, inverse);
}

void ToBfloat16(const float* in, int64_t count, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(ToBfloat16)(in, count, out);
}

void ScaleRows(MatrixView<float> tile, const float* factors) {
  HWY_DYNAMIC_DISPATCH(ScaleRows)(tile, factors);
}

void AccumulateNormalizer(MatrixView<const float> cosines, const ClassLogitScale& scale, const float* thresholds,
                          const RunningNormalizer& running) {
  HWY_DYNAMIC_DISPATCH(AccumulateNormalizer)(cosines, scale, thresholds, running);
}

void CosineGradients(MatrixView<float> cosines, const ClassLogitScale& scale, const BackwardColumns& columns,
                     const float* inverse_norms, float* along_weights) {
  HWY_DYNAMIC_DISPATCH(CosineGradients)(cosines, scale, columns, inverse_norms, along_weights);
}

void UpdateNearest(MatrixView<const float> cosines, int32_t first_class, float* best, int32_t* classes) {
  HWY_DYNAMIC_DISPATCH(UpdateNearest)(cosines, first_class, best, classes);
}

void UpdateRow(const UpdateRule& rule, const float* gradients, float along, float inverse_norm, int64_t n,
               float* weights, float* first, float* second) {
  HWY_DYNAMIC_DISPATCH(UpdateRow)(rule, gradients, along, inverse_norm, n, weights, first, second);
}

}  // namespace shardmax
#endif  // HWY_ONCE
