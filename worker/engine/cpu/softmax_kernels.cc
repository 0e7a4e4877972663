#include <cstring>

#include "worker/engine/cpu/tile_kernels.h"

// Highway compiles the rest of this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/engine/cpu/softmax_kernels.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace shardmax {
namespace HWY_NAMESPACE {  // NOLINT(modernize-concat-nested-namespaces): opened by macro.

#include "worker/engine/cpu/vector_ops-inl.h"
#include "worker/loss/class_logit-inl.h"

using Quantised = hn::Rebind<int16_t, Ints>;

// Rows that are added up in float32.
constexpr int64_t kBlockRows = 64;

// Fetches what is upcoming, evenly over so many vectors of work.
class Prefetcher {
 public:
  Prefetcher(const Upcoming& upcoming, int64_t vectors)
      : next_(static_cast<const char*>(upcoming.data)), end_(next_ + upcoming.bytes) {
    const int64_t lines = (upcoming.bytes + kLineBytes - 1) / kLineBytes;
    lines_a_vector_ = (lines + vectors - 1) / HWY_MAX(vectors, int64_t{1});
  }

  HWY_INLINE void Step() {
    for (int64_t i = 0; i < lines_a_vector_ && next_ < end_; ++i, next_ += kLineBytes) {
      __builtin_prefetch(next_, 0, 2);  // Into the second-level cache: it is not read at once.
    }
  }

 private:
  static constexpr int64_t kLineBytes = 64;
  const char* next_;
  const char* end_;
  int64_t lines_a_vector_;
};

// Ways to keep a vector of cosines, at `at` of the tile.
struct KeepNothing {
  HWY_INLINE void operator()(int64_t, Vector, hn::Mask<Floats>) const {}
};

struct KeepFloat32 {
  float* tile;
  HWY_INLINE void operator()(int64_t at, Vector cosine, hn::Mask<Floats>) const {
    // Not to be read before the backward pass, so it need not go through the caches. Narrower vectors would write
    // parts of a line, which is slower.
    if (hn::Lanes(Floats()) == static_cast<size_t>(kColumnAlignment)) {
      hn::Stream(cosine, Floats(), tile + at);
    } else {
      hn::StoreU(cosine, Floats(), tile + at);
    }
  }
};

struct KeepInt16 {
  int16_t* tile;
  hn::Vec<Ints> threshold;
  HWY_INLINE void operator()(int64_t at, Vector cosine, hn::Mask<Floats> is_support_vector) const {
    const Ints di;
    const auto rounded = hn::NearestInt(hn::Mul(cosine, hn::Set(Floats(), 1 / kInt16Step)));
    const auto above = hn::Max(rounded, hn::Add(threshold, hn::Set(di, 1)));
    const auto below = hn::Min(rounded, threshold);
    hn::StoreU(hn::DemoteTo(Quantised(), hn::IfThenElse(hn::RebindMask(di, is_support_vector), above, below)),
               Quantised(), tile + at);
  }
};

// One block of rows, the vector of columns from b on.
struct Block {
  const float* products;  // Of the first row and column b.
  const float* factors;   // Of the first row.
  int64_t rows;
  int64_t stride;  // From row to row.
  int64_t at;      // Of the first product in the tile.
};

struct BlockSums {
  Vector sum, largest;
  hn::Vec<Ints> support_vectors;
};

template <class Keep>
HWY_INLINE BlockSums SumBlock(const Block& block, const ShiftedLogit<Vector>& row, const Keep& keep,
                              Prefetcher& prefetcher) {
  const Floats d;
  const Ints di;
  const VectorOps ops;
  BlockSums sums = {hn::Zero(d), hn::Set(d, -HUGE_VALF), hn::Zero(di)};
  for (int64_t k = 0; k < block.rows; ++k) {
    prefetcher.Step();
    const auto cosine = hn::Mul(hn::LoadU(d, block.products + k * block.stride), hn::Set(d, block.factors[k]));
    const auto is_support_vector = IsSupportVector(ops, row, cosine);
    sums.sum = hn::Add(sums.sum, ExpLogit(ops, row, cosine, is_support_vector));
    sums.largest = hn::Max(sums.largest, cosine);
    sums.support_vectors = hn::Sub(sums.support_vectors, hn::VecFromMask(di, hn::RebindMask(di, is_support_vector)));
    keep(block.at + k * block.stride, cosine, is_support_vector);
  }
  return sums;
}

ShiftedLogit<Vector> ShiftedBy(const ClassLogitScale& scale, Vector threshold, Vector shift) {
  const VectorOps ops;
  return {threshold, ops.Set(scale.plain_slope), hn::Neg(shift), ops.Set(scale.support_vector_slope),
          hn::Sub(ops.Set(scale.support_vector_offset), shift)};
}

void AddToTotals(Vector sum, Vector rescale, double* totals) {
  HWY_ALIGN float sums[kColumnAlignment];
  HWY_ALIGN float rescales[kColumnAlignment];
  hn::Store(sum, Floats(), sums);
  hn::Store(rescale, Floats(), rescales);
  for (size_t lane = 0; lane < hn::Lanes(Floats()); ++lane) {
    totals[lane] = totals[lane] * static_cast<double>(rescales[lane]) + static_cast<double>(sums[lane]);
  }
}

template <class Keep>
HWY_INLINE void AccumulateBlock(const Block& block, const ClassLogitScale& scale, Vector threshold,
                                const RunningNormalizer& running, int64_t b, const Keep& keep, Prefetcher& prefetcher) {
  const Floats d;
  const Ints di;
  const VectorOps ops;
  const auto old_max = hn::LoadU(d, running.max_logits + b);
  auto max = old_max;
  BlockSums sums = SumBlock(block, ShiftedBy(scale, threshold, max), keep, prefetcher);
  const auto top = HWY_NAMESPACE::Logit(ops, scale, threshold, sums.largest);
  if (!hn::AllTrue(d, hn::Le(top, hn::Add(max, hn::Set(d, kLooseMax))))) {
    // No class has a logit below -s but by rounding. The floor keeps that of an excluded cosine, if it is the only one,
    // from becoming the maximum, against which e^z would be rounding noise instead of 0.
    max = hn::Max(max, hn::Max(ops.Set(-2 * scale.plain_slope), top));
    sums = SumBlock(block, ShiftedBy(scale, threshold, max), keep, prefetcher);
  }
  hn::StoreU(hn::Add(hn::LoadU(di, running.support_vectors + b), sums.support_vectors), di,
             running.support_vectors + b);
  hn::StoreU(max, d, running.max_logits + b);
  AddToTotals(sums.sum, ExpOf(hn::Sub(old_max, max)), running.sums + b);
}

void AccumulateNormalizer(MatrixView<const float> products, const float* factors, const ClassLogitScale& scale,
                          const float* thresholds, const RunningNormalizer& running, const KeptTile& kept,
                          const Upcoming& upcoming) {
  const Floats d;
  Prefetcher prefetcher(upcoming, products.rows * products.cols / static_cast<int64_t>(hn::Lanes(d)));
  for (int64_t first = 0; first < products.rows; first += kBlockRows) {
    const int64_t rows = HWY_MIN(kBlockRows, products.rows - first);
    for (int64_t b = 0; b < products.cols; b += static_cast<int64_t>(hn::Lanes(d))) {
      const int64_t at = first * products.cols + b;
      const Block block = {products.data + at, factors + first, rows, products.cols, at};
      const auto threshold = hn::LoadU(d, thresholds + b);
      if (kept.float32 != nullptr) {
        AccumulateBlock(block, scale, threshold, running, b, KeepFloat32{kept.float32}, prefetcher);
      } else if (kept.int16 != nullptr) {
        AccumulateBlock(block, scale, threshold, running, b,
                        KeepInt16{kept.int16, hn::LoadU(Ints(), kept.int16_thresholds + b)}, prefetcher);
      } else {
        AccumulateBlock(block, scale, threshold, running, b, KeepNothing(), prefetcher);
      }
    }
  }
  if (kept.float32 != nullptr) hwy::FlushStream();
}

// Ways to read the cosines of row k from a tile.
struct ScaledProducts {
  const float* products;
  const float* factors;
  HWY_INLINE Vector operator()(int64_t k, int64_t at) const {
    return hn::Mul(hn::LoadU(Floats(), products + at), hn::Set(Floats(), factors[k]));
  }
};

struct KeptFloat32 {
  const float* tile;
  HWY_INLINE Vector operator()(int64_t, int64_t at) const { return hn::LoadU(Floats(), tile + at); }
};

struct KeptInt16 {
  const int16_t* tile;
  HWY_INLINE Vector operator()(int64_t, int64_t at) const {
    const auto steps = hn::ConvertTo(Floats(), hn::PromoteTo(Ints(), hn::LoadU(Quantised(), tile + at)));
    return hn::Mul(steps, hn::Set(Floats(), kInt16Step));
  }
};

template <class Load>
HWY_INLINE void GradientsOf(int64_t classes, int64_t columns_padded, const Load& load, const ClassLogitScale& scale,
                            const BackwardColumns& columns, const float* inverse_norms, const TileGradients& gradients,
                            float* along_weights, Prefetcher prefetcher) {
  const Floats d;
  const VectorOps ops;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto plain_slope = ops.Set(scale.plain_slope);
  const auto support_vector_slope = ops.Set(scale.support_vector_slope);
  for (int64_t k = 0; k < classes; ++k) {
    const auto inverse_norm = hn::Set(d, inverse_norms[k]);
    auto along_weight = hn::Zero(d);
    for (int64_t b = 0; b < columns_padded; b += lanes) {
      const int64_t at = k * columns_padded + b;
      prefetcher.Step();
      const ShiftedLogit<Vector> row = {hn::LoadU(d, columns.thresholds + b), plain_slope,
                                        hn::Neg(hn::LoadU(d, columns.shifts + b)), support_vector_slope,
                                        hn::LoadU(d, columns.support_vector_offsets + b)};
      const auto cosine = load(k, at);
      const auto gradient = ClassCosineGradient(ops, row, hn::LoadU(d, columns.row_scales + b), cosine);
      const auto scaled = hn::Mul(gradient, inverse_norm);
      along_weight = hn::MulAdd(scaled, cosine, along_weight);
      if (gradients.float32 != nullptr) {
        hn::StoreU(gradients.rounded ? RoundedToBfloat16(scaled) : scaled, d, gradients.float32 + at);
      } else {
        StoreBfloat16(scaled, gradients.bfloat16 + at);
      }
    }
    along_weights[k] = hn::GetLane(hn::SumOfLanes(d, along_weight));
  }
}

void CosineGradients(int64_t classes, int64_t columns_padded, const TileCosines& cosines, const ClassLogitScale& scale,
                     const BackwardColumns& columns, const float* inverse_norms, const TileGradients& gradients,
                     float* along_weights, const Upcoming& upcoming) {
  const Prefetcher prefetcher(upcoming, classes * columns_padded / static_cast<int64_t>(hn::Lanes(Floats())));
  const auto with = [&](const auto& load) HWY_ATTR {
    GradientsOf(classes, columns_padded, load, scale, columns, inverse_norms, gradients, along_weights, prefetcher);
  };
  if (cosines.kept.float32 != nullptr) {
    with(KeptFloat32{cosines.kept.float32});
  } else if (cosines.kept.int16 != nullptr) {
    with(KeptInt16{cosines.kept.int16});
  } else {
    with(ScaledProducts{cosines.products, cosines.factors});
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

}  // namespace HWY_NAMESPACE
}  // namespace shardmax
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardmax {
namespace {

HWY_EXPORT(AccumulateNormalizer);
HWY_EXPORT(CosineGradients);
HWY_EXPORT(UpdateNearest);

}  // namespace

void AccumulateNormalizer(MatrixView<const float> products, const float* factors, const ClassLogitScale& scale,
                          const float* thresholds, const RunningNormalizer& running, const KeptTile& kept,
                          const Upcoming& upcoming) {
  HWY_DYNAMIC_DISPATCH(AccumulateNormalizer)(products, factors, scale, thresholds, running, kept, upcoming);
}

void CosineGradients(int64_t classes, int64_t columns_padded, const TileCosines& cosines, const ClassLogitScale& scale,
                     const BackwardColumns& columns, const float* inverse_norms, const TileGradients& gradients,
                     float* along_weights, const Upcoming& upcoming) {
  HWY_DYNAMIC_DISPATCH(CosineGradients)
  (classes, columns_padded, cosines, scale, columns, inverse_norms, gradients, along_weights, upcoming);
}

void UpdateNearest(MatrixView<const float> cosines, int32_t first_class, float* best, int32_t* classes) {
  HWY_DYNAMIC_DISPATCH(UpdateNearest)(cosines, first_class, best, classes);
}

}  // namespace shardmax
#endif  // HWY_ONCE
