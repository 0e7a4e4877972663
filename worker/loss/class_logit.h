// Logits of the classes that are not a row's label, with the support-vector mask of arXiv:1812.11317.
//
// Class k is a support vector of a row iff cos_k > f. Then z_k = s (t cos_k + t - 1), else z_k = s cos_k: the factor
// h(t, cos, I) e^{s cos} of the paper, as a logit. t >= 1 keeps z increasing in cos_k, so the largest logit of a set
// of classes is that of its largest cosine.
#pragma once

#include "worker/loss/loss_params.h"
#include "worker/loss/portable.h"

namespace shardmax {

// The two slopes of z over cos_k, and the constant of the support-vector branch.
struct ClassLogitScale {
  double plain_slope;            // s
  double support_vector_slope;   // s t
  double support_vector_offset;  // s (t - 1)
};

inline ClassLogitScale ScaleOf(const LossParams& loss) {
  return {loss.scale, loss.scale * loss.t, loss.scale * (loss.t - 1)};
}

#include "worker/loss/class_logit-inl.h"  // Inside the namespace, see there.

}  // namespace shardmax
