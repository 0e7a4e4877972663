// The element-wise work on a tile of classes, vectorised for the processor that runs it (Highway, chosen at run time).
//
// A tile holds T classes by P columns, class-major: column b of every class belongs to row b of the batch, so that a
// reduction over classes needs no horizontal step. P is B rounded up to kColumnAlignment; the arrays of P elements are
// padded alike, and what stands in the padding is finite and ignored.
#pragma once

#include <cstdint>
#include <string>

#include "worker/base/matrix_view.h"
#include "worker/loss/class_logit.h"
#include "worker/optim/update_rule.h"

namespace shardmax {

inline constexpr int64_t kColumnAlignment = 16;

// A cosine that adds nothing: e^z is 0 and it is no support vector. Stands in for the label's own.
inline constexpr float kExcludedCosine = -1e30F;

// The running normaliser of P columns. Neutral: max_logits = -inf, the others 0. A column that met nothing but excluded
// cosines has a sum of 0.
struct RunningNormalizer {
  float* max_logits;         // [P]
  double* sums;              // [P] of e^(z - max_logit)
  int32_t* support_vectors;  // [P]
};

// Row constants of the backward pass, [P] each.
struct BackwardColumns {
  const float* thresholds;
  const float* shifts;
  const float* support_vector_offsets;  // s (t - 1) - shift
  const float* row_scales;
};

// The name of the instruction set that the kernels use here, e.g. "AVX3".
std::string KernelTarget();

// inverse[k] = InverseNorm(row k) of worker/engine/norm.h, to float32 rounding. rows [n, D].
void InverseNorms(MatrixView<const float> rows, float* inverse);

// out[i] = in[i] rounded to bfloat16, ties to even. No NaN: some would become numbers.
void ToBfloat16(const float* in, int64_t count, uint16_t* out);

// Multiplies tile row k by factors[k].
void ScaleRows(MatrixView<float> tile, const float* factors);

// Adds a tile of cosines [T, P] to the running normaliser. Block sums in float32, added up in float64.
void AccumulateNormalizer(MatrixView<const float> cosines, const ClassLogitScale& scale, const float* thresholds,
                          const RunningNormalizer& running);

// Replaces the cosines [T, P] by dloss/dcos times inverse_norms[k], and sets along_weights[k] = sum over columns of
// that product and the cosine: (dŵ_k · ŵ_k) / |w_k|.
void CosineGradients(MatrixView<float> cosines, const ClassLogitScale& scale, const BackwardColumns& columns,
                     const float* inverse_norms, float* along_weights);

// The largest cosine of each column so far, and its class, ties to the lower: best [P], classes [P]. Class ids of the
// tile's rows are first_class, first_class + 1, ….
void UpdateNearest(MatrixView<const float> cosines, int32_t first_class, float* best, int32_t* classes);

// One optimizer step on a row of n weights. `gradients` holds dloss/dŵ / |w|; its part along the weight is taken out
// first: g_i = gradients_i - along ŵ_i with along = (dŵ · ŵ) / |w| and ŵ_i = w_i inverse_norm. `first` and `second` are
// the rows of the optimizer's tensors, null where it has none.
void UpdateRow(const UpdateRule& rule, const float* gradients, float along, float inverse_norm, int64_t n,
               float* weights, float* first, float* second);

}  // namespace shardmax
