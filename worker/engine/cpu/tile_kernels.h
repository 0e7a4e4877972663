// The element-wise work on a tile of classes, vectorised for the processor that runs it (Highway, chosen at run time).
//
// A tile holds T classes by P columns, class-major: column b of every class belongs to row b of the batch, so that a
// reduction over classes needs no horizontal step. P is B rounded up to kColumnAlignment; the arrays of P elements are
// padded alike, and what stands in the padding is finite and ignored.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "worker/base/matrix_view.h"
#include "worker/loss/class_logit.h"
#include "worker/optim/skipped_steps.h"
#include "worker/optim/state_row.h"
#include "worker/optim/update_rule.h"

namespace shardmax {

inline constexpr int64_t kColumnAlignment = 16;

// A cosine that adds nothing: e^z is 0 and it is no support vector. Stands in for the label's own.
inline constexpr float kExcludedCosine = -1e30F;

// The running normaliser of P columns. Neutral: max_logits = -inf, the others 0. A column that met nothing but excluded
// cosines has a sum of 0.
struct RunningNormalizer {
  float* max_logits;         // [P], each at most kLooseMax below the largest logit so far
  double* sums;              // [P] of e^(z - max_logit)
  int32_t* support_vectors;  // [P]
};

// A maximum that lags by so much costs the sums no accuracy, and is rarely renewed.
inline constexpr float kLooseMax = 8;

// The steps of cosines in int16.
inline constexpr float kInt16Step = 1.0F / 32767;

// Where AccumulateNormalizer leaves the cosines of a tile [T, P] for CosineGradients: nowhere, or one of the two.
struct KeptTile {
  float* float32 = nullptr;  // Aligned to 64 bytes.
  // round(32767 cos), but on the side of int16_thresholds of its column where the cosine is of its threshold.
  int16_t* int16 = nullptr;
  const int32_t* int16_thresholds = nullptr;  // [P] floor(32767 f), in [-32768, 32767]
};

// Memory that is read next. A kernel that computes fetches it into the caches meanwhile, a little with each vector, as
// the processor waits for memory in what comes after. Costs nothing but time where it is not read.
struct Upcoming {
  const void* data = nullptr;
  int64_t bytes = 0;
};

// Brings values that are read soon, but not next, to the second-level cache.
inline void Prefetch(std::span<const float> values) {
  constexpr size_t kLineFloats = 16;
  for (size_t i = 0; i < values.size(); i += kLineFloats) __builtin_prefetch(values.data() + i, 0, 2);
}

// Row constants of the backward pass, [P] each.
struct BackwardColumns {
  const float* thresholds;  // For cosines in int16 (floor(32767 f) + 1/2) / 32767.
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

// out[i] = in[i] rounded as by ToBfloat16, as a float32.
void RoundToBfloat16(const float* in, int64_t count, float* out);

// Rows [n, D] as oneDNN packs the second operand of a product: panels of 64 columns, in each the n rows after each
// other; in bfloat16 pairs of rows, interleaved. D must be a multiple of 64, for bfloat16 n one of 2.
inline constexpr int64_t kPanelColumns = 64;
void PackPanels(MatrixView<const float> rows, float* panels);
// `plain`, if not null, gets the rows as they lie too, for one conversion of both.
void PackBfloat16Panels(MatrixView<const float> rows, uint16_t* panels, uint16_t* plain = nullptr);

// Multiplies tile row k by factors[k].
void ScaleRows(MatrixView<float> tile, const float* factors);

// Adds a tile of cosines [T, P], those in `products` times the factor of their row, to the running normaliser, and
// keeps them. Block sums in float32, added up in float64.
void AccumulateNormalizer(MatrixView<const float> products, const float* factors, const ClassLogitScale& scale,
                          const float* thresholds, const RunningNormalizer& running, const KeptTile& kept,
                          const Upcoming& upcoming = {});

// The cosines of a tile as CosineGradients takes them: `products` times the factor of their row, or kept ones.
struct TileCosines {
  const float* products = nullptr;
  const float* factors = nullptr;
  KeptTile kept;
};

// Where it leaves the gradients: in one of the two.
struct TileGradients {
  float* float32 = nullptr;  // May be the products.
  bool rounded = false;      // To bfloat16, in float32.
  uint16_t* bfloat16 = nullptr;
};

// gradients [classes, columns] = dloss/dcos times inverse_norms[k], and along_weights[k] = sum over columns of that
// product and the cosine: (dŵ_k · ŵ_k) / |w_k|.
void CosineGradients(int64_t classes, int64_t columns_padded, const TileCosines& cosines, const ClassLogitScale& scale,
                     const BackwardColumns& columns, const float* inverse_norms, const TileGradients& gradients,
                     float* along_weights, const Upcoming& upcoming = {});

// The largest cosine of each column so far, and its class, ties to the lower: best [P], classes [P]. Class ids of the
// tile's rows are first_class, first_class + 1, ….
void UpdateNearest(MatrixView<const float> cosines, int32_t first_class, float* best, int32_t* classes);

// What an optimizer step on a row of n weights takes and changes.
struct RowUpdate {
  const float* gradients;  // [n] dloss/dŵ / |w|; its part along the weight is taken out first:
  float along;             // g_i = gradients_i - along ŵ_i with along = (dŵ · ŵ) / |w|,
  float inverse_norm;      // and ŵ_i = w_i inverse_norm.
  int64_t n;
  float* weights;
  StateRow first, second;  // Of the optimizer's tensors, empty where it has none; both of one type.
  uint32_t noise = 0;      // RowNoise of the class, for state in bfloat16.
};
void UpdateRow(const UpdateRule& rule, const RowUpdate& row);

// The steps of `map` on a row, which has at most one tensor of state; gradients and what is about them are not read.
void CatchUpRow(const DecayMap& map, const RowUpdate& row);

}  // namespace shardmax
