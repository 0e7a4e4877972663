#include <cstring>

#include "worker/engine/cpu/tile_kernels.h"
#include "worker/engine/norm.h"

// Highway compiles the rest of this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/engine/cpu/row_kernels.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

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

uint16_t ScalarToBfloat16(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7FFFU + ((bits >> 16U) & 1U)) >> 16U);
}

void ToBfloat16(const float* in, int64_t count, uint16_t* out) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(Floats()));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) StoreBfloat16(hn::LoadU(Floats(), in + i), out + i);
  for (; i < count; ++i) out[i] = ScalarToBfloat16(in[i]);
}

void RoundToBfloat16(const float* in, int64_t count, float* out) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(RoundedToBfloat16(hn::LoadU(d, in + i)), d, out + i);
  }
  for (; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(ScalarToBfloat16(in[i])) << 16U;
    std::memcpy(out + i, &bits, sizeof(bits));
  }
}

void PackPanels(MatrixView<const float> rows, float* panels) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t panel_size = rows.rows * kPanelColumns;
  for (int64_t k = 0; k < rows.rows; ++k) {
    for (int64_t i = 0; i < rows.cols; i += kPanelColumns) {
      const float* from = rows.data + k * rows.cols + i;
      float* to = panels + i / kPanelColumns * panel_size + k * kPanelColumns;
      for (int64_t j = 0; j < kPanelColumns; j += lanes) hn::StoreU(hn::LoadU(d, from + j), d, to + j);
    }
  }
}

template <bool kPlain>
HWY_INLINE void PackPairs(MatrixView<const float> rows, uint16_t* panels, uint16_t* plain) {
  const Floats d;
  const Bits du;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t panel_size = rows.rows * kPanelColumns;
  for (int64_t k = 0; k < rows.rows; k += 2) {
    const float* even = rows.data + k * rows.cols;
    const float* odd = even + rows.cols;
    for (int64_t i = 0; i < rows.cols; i += kPanelColumns) {
      auto* to = reinterpret_cast<uint32_t*>(panels + i / kPanelColumns * panel_size + k * kPanelColumns);
      for (int64_t j = 0; j < kPanelColumns; j += lanes) {
        const auto low = Bfloat16Bits(hn::LoadU(d, even + i + j));
        const auto high = Bfloat16Bits(hn::LoadU(d, odd + i + j));
        hn::StoreU(hn::Or(low, hn::ShiftLeft<16>(high)), du, to + j);
        if (!kPlain) continue;
        uint16_t* even_plain = plain + k * rows.cols + i + j;
        hn::StoreU(hn::DemoteTo(Halves(), hn::BitCast(Ints(), low)), Halves(), even_plain);
        hn::StoreU(hn::DemoteTo(Halves(), hn::BitCast(Ints(), high)), Halves(), even_plain + rows.cols);
      }
    }
  }
}

void PackBfloat16Panels(MatrixView<const float> rows, uint16_t* panels, uint16_t* plain) {
  if (plain != nullptr) {
    PackPairs<true>(rows, panels, plain);
  } else {
    PackPairs<false>(rows, panels, plain);
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
HWY_EXPORT(RoundToBfloat16);
HWY_EXPORT(PackPanels);
HWY_EXPORT(PackBfloat16Panels);
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

void RoundToBfloat16(const float* in, int64_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(RoundToBfloat16)(in, count, out);
}

void PackPanels(MatrixView<const float> rows, float* panels) {
  HWY_DYNAMIC_DISPATCH(PackPanels)(rows, panels);
}

void PackBfloat16Panels(MatrixView<const float> rows, uint16_t* panels, uint16_t* plain) {
  HWY_DYNAMIC_DISPATCH(PackBfloat16Panels)(rows, panels, plain);
}

void ScaleRows(MatrixView<float> tile, const float* factors) {
  HWY_DYNAMIC_DISPATCH(ScaleRows)(tile, factors);
}

}  // namespace shardmax
#endif  // HWY_ONCE
