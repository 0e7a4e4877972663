// The softmax normaliser of a row, put together from shards, and the loss that follows from it.
#pragma once

#include <cstdint>
#include <limits>

#include "worker/loss/loss_params.h"
#include "worker/loss/portable.h"

namespace shardmax {

// What one shard knows of one row: over its classes other than the label, about the largest logit, the sum of
// e^(z - max_logit), and how many are support vectors. Any max_logit means the same that keeps the sum from overflowing
// and its large terms from vanishing. Travels between ranks as bytes. The neutral element has
// max_logit = -inf and sum_exp = 0 (a shard that owns nothing but the label).
struct ShardPartial {
  double sum_exp = 0;
  float max_logit = -std::numeric_limits<float>::infinity();
  int32_t support_vectors = 0;
};
static_assert(sizeof(ShardPartial) == 16);

// The partial of the union of two disjoint sets of classes.
SHARDMAX_HOST_DEVICE inline ShardPartial Merge(const ShardPartial& a, const ShardPartial& b) {
  const ShardPartial& larger = a.max_logit >= b.max_logit ? a : b;
  const ShardPartial& smaller = a.max_logit >= b.max_logit ? b : a;
  ShardPartial merged = larger;
  if (smaller.sum_exp != 0) {
    merged.sum_exp +=
        smaller.sum_exp * std::exp(static_cast<double>(smaller.max_logit) - static_cast<double>(larger.max_logit));
  }
  merged.support_vectors += smaller.support_vectors;
  return merged;
}

// The loss of one row and what its gradient needs.
struct RowLoss {
  double loss = 0;            // (1 - p)^gamma (-log p), in nats
  double log_normalizer = 0;  // log of the sum of e^z over all classes, the label included
  double other_share = 0;     // 1 - p, without cancellation
  double logit_gradient = 0;  // G: dloss/dz_k = G p_k for k != y, and dloss/dz_y = -G (1 - p)
};

// From `others`, the merged partial of all shards, and the scaled target logit z_y = s f. With d = log sum_others -
// z_y: -log p = log(1 + e^d), 1 - p = 1 / (1 + e^-d); so both are accurate as p -> 1 and as p -> 0. G = (1 - p)^gamma -
// gamma p (1 - p)^(gamma - 1) log p (arXiv:1708.02002, full gradient).
SHARDMAX_HOST_DEVICE inline RowLoss EvaluateRowLoss(const ShardPartial& others, double target_logit, double gamma) {
  const double d = static_cast<double>(others.max_logit) + std::log(others.sum_exp) - target_logit;
  const double e = std::exp(d > 0 ? -d : d);  // e^-|d|
  const double negative_log_p = (d > 0 ? d : 0) + std::log1p(e);
  const double q = d > 0 ? 1 / (1 + e) : e / (1 + e);
  const double p = d > 0 ? e / (1 + e) : 1 / (1 + e);
  RowLoss row;
  row.log_normalizer = target_logit + negative_log_p;
  row.other_share = q;
  if (gamma == 0) {
    row.loss = negative_log_p;
    row.logit_gradient = 1;
  } else if (q > 0) {
    const double focal = std::pow(q, gamma);
    row.loss = focal * negative_log_p;
    row.logit_gradient = focal + gamma * p * (focal / q) * negative_log_p;
  }
  return row;
}

}  // namespace shardmax
