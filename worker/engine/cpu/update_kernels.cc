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

// How the tensors of the state are held: loading and storing a vector. `noise` is below 2^16 in every lane.
struct Float32State {
  using Element = float;
  static Element* Of(const StateRow& row) { return row.float32; }
  static HWY_INLINE Vector Load(const Element* from) { return hn::LoadU(Floats(), from); }
  static HWY_INLINE void Store(Vector v, hn::Vec<Bits>, Element* to) { hn::StoreU(v, Floats(), to); }
  static HWY_INLINE hn::Vec<Bits> Noise(uint32_t, int64_t) { return hn::Zero(Bits()); }
};

struct Bfloat16State {
  using Element = uint16_t;
  static Element* Of(const StateRow& row) { return row.bfloat16; }
  static HWY_INLINE Vector Load(const Element* from) {
    return hn::BitCast(Floats(), hn::ShiftLeft<16>(hn::PromoteTo(Bits(), hn::LoadU(Halves(), from))));
  }
  // RoundStochastically.
  static HWY_INLINE void Store(Vector v, hn::Vec<Bits> noise, Element* to) {
    const auto bits = hn::ShiftRight<16>(hn::Add(hn::BitCast(Bits(), v), noise));
    hn::StoreU(hn::DemoteTo(Halves(), hn::BitCast(Ints(), bits)), Halves(), to);
  }
  // ElementNoise of the columns from `column` on.
  static HWY_INLINE hn::Vec<Bits> Noise(uint32_t row_noise, int64_t column) {
    const Bits d;
    const auto columns = hn::Iota(d, static_cast<uint32_t>(column));
    auto x = hn::Add(hn::Set(d, row_noise), hn::Mul(columns, hn::Set(d, kColumnFactor)));
    x = hn::Mul(hn::Xor(x, hn::ShiftRight<16>(x)), hn::Set(d, kNoiseFactor1));
    x = hn::Mul(hn::Xor(x, hn::ShiftRight<15>(x)), hn::Set(d, kNoiseFactor2));
    return hn::Xor(x, hn::ShiftRight<16>(x));
  }
};

// Calls update(weight, gradient, first, second) on whole vectors, the last one padded.
template <class State, class Update>
HWY_INLINE void ForEachVector(const RowUpdate& row, const Update& update) {
  using Element = typename State::Element;
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto minus_along = hn::Set(d, -row.along);
  const auto scale = hn::Set(d, row.inverse_norm);  // Not multiplied with `along`: that overflows for tiny weights.
  Element* first = State::Of(row.first);
  Element* second = State::Of(row.second);
  const auto step = [&](int64_t column, const float* g, float* w, Element* m, Element* v) HWY_ATTR {
    const auto weight = hn::LoadU(d, w);
    auto first_moment = m == nullptr ? hn::Zero(d) : State::Load(m);
    auto second_moment = v == nullptr ? hn::Zero(d) : State::Load(v);
    const auto gradient = hn::MulAdd(minus_along, hn::Mul(scale, weight), hn::LoadU(d, g));
    hn::StoreU(update(weight, gradient, first_moment, second_moment), d, w);
    const auto noise = State::Noise(row.noise, column);
    if (m != nullptr) State::Store(first_moment, hn::And(noise, hn::Set(Bits(), 0xFFFFU)), m);
    if (v != nullptr) State::Store(second_moment, hn::ShiftRight<16>(noise), v);
  };
  int64_t i = 0;
  for (; i + lanes <= row.n; i += lanes) {
    step(i, row.gradients + i, row.weights + i, first == nullptr ? nullptr : first + i,
         second == nullptr ? nullptr : second + i);
  }
  if (i == row.n) return;
  const int64_t rest = row.n - i;
  HWY_ALIGN float tail[2][kColumnAlignment] = {};
  HWY_ALIGN Element state_tail[2][kColumnAlignment] = {};
  std::copy_n(row.gradients + i, rest, tail[0]);
  std::copy_n(row.weights + i, rest, tail[1]);
  if (first != nullptr) std::copy_n(first + i, rest, state_tail[0]);
  if (second != nullptr) std::copy_n(second + i, rest, state_tail[1]);
  step(i, tail[0], tail[1], state_tail[0], state_tail[1]);
  std::copy_n(tail[1], rest, row.weights + i);
  if (first != nullptr) std::copy_n(state_tail[0], rest, first + i);
  if (second != nullptr) std::copy_n(state_tail[1], rest, second + i);
}

template <class State>
HWY_INLINE void UpdateRowOf(const UpdateRule& rule, const RowUpdate& row) {
  const VectorOps ops;
  if (rule.params.kind == OptimizerKind::kAdamW) {
    const AdamWConstants<VectorOps> k(ops, rule);
    ForEachVector<State>(
        row, [&](Vector w, Vector g, Vector& m, Vector& v) HWY_ATTR { return AdamWUpdate(ops, k, w, g, m, v); });
    return;
  }
  const SgdConstants<VectorOps> k(ops, rule);
  if (row.first.empty()) {
    ForEachVector<State>(row, [&](Vector w, Vector g, Vector&, Vector&) HWY_ATTR { return SgdUpdate(ops, k, w, g); });
  } else if (rule.params.nesterov) {
    ForEachVector<State>(
        row, [&](Vector w, Vector g, Vector& m, Vector&) HWY_ATTR { return SgdMomentumUpdate<true>(ops, k, w, g, m); });
  } else {
    ForEachVector<State>(row, [&](Vector w, Vector g, Vector& m, Vector&)
                                  HWY_ATTR { return SgdMomentumUpdate<false>(ops, k, w, g, m); });
  }
}

void UpdateRow(const UpdateRule& rule, const RowUpdate& row) {
  if (row.first.bfloat16 != nullptr) {
    UpdateRowOf<Bfloat16State>(rule, row);
  } else {
    UpdateRowOf<Float32State>(rule, row);
  }
}

template <class State>
HWY_INLINE void CatchUpRowOf(const DecayMap& map, const RowUpdate& row) {
  const VectorOps ops;
  const auto weight_of_weight = ops.Set(map.weight_of_weight);
  const auto weight_of_momentum = ops.Set(map.weight_of_momentum);
  const auto momentum_of_weight = ops.Set(map.momentum_of_weight);
  const auto momentum_of_momentum = ops.Set(map.momentum_of_momentum);
  // As an update whose gradient is nothing.
  RowUpdate update = row;
  update.gradients = row.weights;
  ForEachVector<State>(update, [&](Vector w, Vector, Vector& m, Vector&) HWY_ATTR {
    const auto weight = hn::MulAdd(weight_of_weight, w, hn::Mul(weight_of_momentum, m));
    m = hn::MulAdd(momentum_of_weight, w, hn::Mul(momentum_of_momentum, m));
    return weight;
  });
}

void CatchUpRow(const DecayMap& map, const RowUpdate& row) {
  if (row.first.bfloat16 != nullptr) {
    CatchUpRowOf<Bfloat16State>(map, row);
  } else {
    CatchUpRowOf<Float32State>(map, row);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace shardmax
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardmax {
namespace {

HWY_EXPORT(UpdateRow);
HWY_EXPORT(CatchUpRow);

}  // namespace

void UpdateRow(const UpdateRule& rule, const RowUpdate& row) {
  HWY_DYNAMIC_DISPATCH(UpdateRow)(rule, row);
}

void CatchUpRow(const DecayMap& map, const RowUpdate& row) {
  HWY_DYNAMIC_DISPATCH(CatchUpRow)(map, row);
}

}  // namespace shardmax
#endif  // HWY_ONCE
