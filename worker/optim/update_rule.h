// One optimizer step for one element, with the semantics of torch.optim. Shared by every engine.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "worker/loss/portable.h"
#include "worker/optim/state_row.h"

namespace shardmax {

enum class OptimizerKind { kSgd, kAdamW };

// How the optimizer's tensors are held. A step computes in float32 and rounds what it leaves (see state_row.h).
enum class StateType { kFloat32, kBfloat16 };

// The hyper-parameters of a job's optimizer.
struct OptimizerParams {
  OptimizerKind kind = OptimizerKind::kSgd;
  double weight_decay = 0;
  double momentum = 0;    // sgd
  bool nesterov = false;  // sgd
  double beta1 = 0.9;     // adamw
  double beta2 = 0.999;   // adamw
  double eps = 1e-8;      // adamw
  StateType state_type = StateType::kFloat32;
  uint32_t noise_seed = 0;  // Of stochastic rounding: the job's seed.

  // Names of the state tensors [C_r, D], as checkpoints hold them: none, "momentum", or "exp_avg" and "exp_avg_sq".
  // State starts at zero.
  std::vector<std::string> StateNames() const {
    if (kind == OptimizerKind::kAdamW) return {"exp_avg", "exp_avg_sq"};
    if (momentum != 0) return {"momentum"};
    return {};
  }
};

// What one step of the job does with a gradient: params at its learning rate, with the factors that depend on the
// number of the step worked out in double.
struct UpdateRule {
  OptimizerParams params;
  double lr = 0;
  double decay_factor = 1;        // adamw: 1 - lr weight_decay
  double step_size = 0;           // adamw: lr / (1 - beta1^(step + 1))
  double inverse_sqrt_bias2 = 1;  // adamw: 1 / sqrt(1 - beta2^(step + 1))
  uint64_t noise = 0;             // StepNoise of the step

  // `step` counts from 0.
  static UpdateRule At(const OptimizerParams& params, double lr, int64_t step) {
    UpdateRule rule{.params = params, .lr = lr, .noise = StepNoise(params.noise_seed, step)};
    if (params.kind == OptimizerKind::kAdamW) {
      const auto count = static_cast<double>(step + 1);
      rule.decay_factor = 1 - lr * params.weight_decay;
      rule.step_size = lr / (1 - std::pow(params.beta1, count));
      rule.inverse_sqrt_bias2 = 1 / std::sqrt(1 - std::pow(params.beta2, count));
    }
    return rule;
  }
};

#include "worker/optim/update_rule-inl.h"  // Inside the namespace, see there.

}  // namespace shardmax
