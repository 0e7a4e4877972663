#include <algorithm>

#include "worker/engine/cpu/tile_kernels.h"
#include "worker/engine/norm.h"

// Highway compiles the rest of this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/engine/cpu/row_kernels.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// After highway.h, as Highway asks.
#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace shardmax {
namespace HWY_NAMESPACE {  // NOLINT(modernize-concat-nested-namespaces): opened by macro.

#include "worker/engine/cpu/vector_ops-inl.h"

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

}  // namespace HWY_NAMESPACE
}  // namespace shardmax
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardmax {
namespace {

HWY_EXPORT(InverseNorms);
HWY_EXPORT(ToBfloat16);
HWY_EXPORT(ScaleRows);

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

}  // namespace shardmax
#endif  // HWY_ONCE
