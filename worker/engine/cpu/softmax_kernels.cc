#include "worker/engine/cpu/tile_kernels.h"

// Highway compiles the rest of this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/engine/cpu/softmax_kernels.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// After highway.h, as Highway asks.
#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace shardmax {
namespace HWY_NAMESPACE {  // NOLINT(modernize-concat-nested-namespaces): opened by macro.

#include "worker/engine/cpu/vector_ops-inl.h"
#include "worker/loss/class_logit-inl.h"

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

}  // namespace shardmax
#endif  // HWY_ONCE
