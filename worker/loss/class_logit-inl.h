// The element-wise formulas of class_logit.h, as templates over an Ops policy (portable.h).
//
// No include guard and no namespace: class_logit.h includes this once for scalars and CUDA, and the CPU engine once for
// each SIMD target, inside that target's namespace, because a compiler applies target options where a template is
// written, not where it is used.

// z - shift of one row's classes, with what depends on the row alone folded in. Exact in the plain branch when
// `plain_offset` = -shift is exact in V: a float32 shift costs the sum nothing.
template <typename V>
struct ShiftedLogit {
  V threshold;  // f of the row
  V plain_slope;
  V plain_offset;  // -shift
  V support_vector_slope;
  V support_vector_offset;  // s (t - 1) - shift
};

template <typename Ops>
SHARDMAX_HOST_DEVICE typename Ops::M IsSupportVector(const Ops& ops, const ShiftedLogit<typename Ops::V>& row,
                                                     typename Ops::V cosine) {
  return ops.Gt(cosine, row.threshold);
}

// dz / dcos_k; the mask is a constant in the gradient.
template <typename Ops>
SHARDMAX_HOST_DEVICE typename Ops::V LogitSlope(const Ops& ops, const ShiftedLogit<typename Ops::V>& row,
                                                typename Ops::M is_support_vector) {
  return ops.IfThenElse(is_support_vector, row.support_vector_slope, row.plain_slope);
}

// e^(z_k - shift).
template <typename Ops>
SHARDMAX_HOST_DEVICE typename Ops::V ExpLogit(const Ops& ops, const ShiftedLogit<typename Ops::V>& row,
                                              typename Ops::V cosine, typename Ops::M is_support_vector) {
  const auto slope = LogitSlope(ops, row, is_support_vector);
  const auto offset = ops.IfThenElse(is_support_vector, row.support_vector_offset, row.plain_offset);
  return ops.Exp(ops.MulAdd(slope, cosine, offset));
}

// z_k itself, for the running maximum.
template <typename Ops>
SHARDMAX_HOST_DEVICE typename Ops::V Logit(const Ops& ops, const ClassLogitScale& scale, typename Ops::V threshold,
                                           typename Ops::V cosine) {
  const auto is_support_vector = ops.Gt(cosine, threshold);
  const auto slope = ops.IfThenElse(is_support_vector, ops.Set(scale.support_vector_slope), ops.Set(scale.plain_slope));
  const auto offset = ops.IfThenElse(is_support_vector, ops.Set(scale.support_vector_offset), ops.Set(0));
  return ops.MulAdd(slope, cosine, offset);
}

// The gradient of the reduced loss in cos_k: row_scale e^(z_k - shift) dz_k/dcos_k, where
// row_scale = (weight of the row in the loss) e^(shift - log of the normaliser).
template <typename Ops>
SHARDMAX_HOST_DEVICE typename Ops::V ClassCosineGradient(const Ops& ops, const ShiftedLogit<typename Ops::V>& row,
                                                         typename Ops::V row_scale, typename Ops::V cosine) {
  const auto is_support_vector = IsSupportVector(ops, row, cosine);
  const auto probability = ops.Mul(row_scale, ExpLogit(ops, row, cosine, is_support_vector));
  return ops.Mul(probability, LogitSlope(ops, row, is_support_vector));
}
