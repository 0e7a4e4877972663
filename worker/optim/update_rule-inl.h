// The element-wise formulas of update_rule.h, as templates over an Ops policy (worker/loss/portable.h).
//
// No include guard and no namespace: see worker/loss/class_logit-inl.h for the reason.

// The constants of an SGD step in the type of Ops.
template <typename Ops>
struct SgdConstants {
  typename Ops::V lr, weight_decay, momentum;

  SHARDMAX_HOST_DEVICE SgdConstants(const Ops& ops, const UpdateRule& rule)
      : lr(ops.Set(rule.lr)),
        weight_decay(ops.Set(rule.params.weight_decay)),
        momentum(ops.Set(rule.params.momentum)) {}
};

// torch.optim.SGD without momentum: returns the new weight.
template <typename Ops>
SHARDMAX_HOST_DEVICE typename Ops::V SgdUpdate(const Ops& ops, const SgdConstants<Ops>& k, typename Ops::V weight,
                                               typename Ops::V gradient) {
  const auto decayed = ops.MulAdd(k.weight_decay, weight, gradient);
  return ops.Sub(weight, ops.Mul(k.lr, decayed));
}

// torch.optim.SGD with momentum (dampening 0): returns the new weight, `buffer` becomes the new momentum buffer. A
// buffer that starts at zero gives PyTorch's first step, which sets it to the gradient.
template <bool kNesterov, typename Ops>
SHARDMAX_HOST_DEVICE typename Ops::V SgdMomentumUpdate(const Ops& ops, const SgdConstants<Ops>& k,
                                                       typename Ops::V weight, typename Ops::V gradient,
                                                       typename Ops::V& buffer) {
  const auto decayed = ops.MulAdd(k.weight_decay, weight, gradient);
  buffer = ops.MulAdd(k.momentum, buffer, decayed);
  const auto direction = kNesterov ? ops.MulAdd(k.momentum, buffer, decayed) : buffer;
  return ops.Sub(weight, ops.Mul(k.lr, direction));
}

// The constants of an AdamW step in the type of Ops.
template <typename Ops>
struct AdamWConstants {
  typename Ops::V decay_factor, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, inverse_sqrt_bias2, eps;

  SHARDMAX_HOST_DEVICE AdamWConstants(const Ops& ops, const UpdateRule& rule)
      : decay_factor(ops.Set(rule.decay_factor)),
        beta1(ops.Set(rule.params.beta1)),
        one_minus_beta1(ops.Set(1 - rule.params.beta1)),
        beta2(ops.Set(rule.params.beta2)),
        one_minus_beta2(ops.Set(1 - rule.params.beta2)),
        step_size(ops.Set(rule.step_size)),
        inverse_sqrt_bias2(ops.Set(rule.inverse_sqrt_bias2)),
        eps(ops.Set(rule.params.eps)) {}
};

// torch.optim.AdamW: returns the new weight; the two moments are updated.
template <typename Ops>
SHARDMAX_HOST_DEVICE typename Ops::V AdamWUpdate(const Ops& ops, const AdamWConstants<Ops>& k, typename Ops::V weight,
                                                 typename Ops::V gradient, typename Ops::V& exp_avg,
                                                 typename Ops::V& exp_avg_sq) {
  exp_avg = ops.MulAdd(k.beta1, exp_avg, ops.Mul(k.one_minus_beta1, gradient));
  exp_avg_sq = ops.MulAdd(k.beta2, exp_avg_sq, ops.Mul(k.one_minus_beta2, ops.Mul(gradient, gradient)));
  const auto denominator = ops.MulAdd(ops.Sqrt(exp_avg_sq), k.inverse_sqrt_bias2, k.eps);
  return ops.Sub(ops.Mul(k.decay_factor, weight), ops.Div(ops.Mul(k.step_size, exp_avg), denominator));
}
