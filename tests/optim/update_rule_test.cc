#include "worker/optim/update_rule.h"

#include <gmock/gmock.h>

#include <cmath>
#include <vector>

namespace shardmax {
namespace {

constexpr ScalarOps<double> kOps;
const std::vector<double> kGradients = {0.5, -2, 1e-3, 0, 7, 0.25};
constexpr double kFirstWeight = 1.5;

double LearningRate(size_t step) {
  return 0.1 / static_cast<double>(step + 1);
}

// The pseudo-code of torch.optim.SGD, whose momentum buffer does not exist before the first step.
std::vector<double> TorchSgd(double momentum, double weight_decay, bool nesterov) {
  std::vector<double> weights;
  double theta = kFirstWeight;
  double b = 0;
  for (size_t t = 0; t < kGradients.size(); ++t) {
    double g = kGradients[t];
    if (weight_decay != 0) g = g + weight_decay * theta;
    if (momentum != 0) {
      b = t > 0 ? momentum * b + g : g;
      g = nesterov ? g + momentum * b : b;
    }
    theta = theta - LearningRate(t) * g;
    weights.push_back(theta);
  }
  return weights;
}

std::vector<double> OurSgd(double momentum, double weight_decay, bool nesterov) {
  const OptimizerParams params = {.weight_decay = weight_decay, .momentum = momentum, .nesterov = nesterov};
  std::vector<double> weights;
  double weight = kFirstWeight;
  double buffer = 0;
  for (size_t t = 0; t < kGradients.size(); ++t) {
    const UpdateRule rule = UpdateRule::At(params, LearningRate(t), static_cast<int64_t>(t));
    const SgdConstants<ScalarOps<double>> k(kOps, rule);
    if (momentum == 0) {
      weight = SgdUpdate(kOps, k, weight, kGradients[t]);
    } else if (nesterov) {
      weight = SgdMomentumUpdate<true>(kOps, k, weight, kGradients[t], buffer);
    } else {
      weight = SgdMomentumUpdate<false>(kOps, k, weight, kGradients[t], buffer);
    }
    weights.push_back(weight);
  }
  return weights;
}

TEST(Sgd, StepsAsTorchDoes) {
  for (const double momentum : {0.0, 0.5, 0.9}) {
    for (const double weight_decay : {0.0, 5e-4, 1.0}) {
      for (const bool nesterov : {false, true}) {
        if (nesterov && momentum == 0) continue;
        EXPECT_THAT(OurSgd(momentum, weight_decay, nesterov),
                    testing::Pointwise(testing::DoubleNear(1e-14), TorchSgd(momentum, weight_decay, nesterov)))
            << "momentum " << momentum << ", weight decay " << weight_decay << ", nesterov " << nesterov;
      }
    }
  }
}

TEST(Sgd, KeepsTheGradientAsItsFirstMomentum) {
  double buffer = 0;
  const SgdConstants<ScalarOps<double>> k(kOps, UpdateRule::At({.momentum = 0.9}, 0.1, 0));
  SgdMomentumUpdate<false>(kOps, k, 2.0, 0.3, buffer);
  EXPECT_EQ(buffer, 0.3);
}

// The pseudo-code of torch.optim.AdamW.
std::vector<double> TorchAdamW(double beta1, double beta2, double eps, double weight_decay) {
  std::vector<double> weights;
  double theta = kFirstWeight;
  double m = 0, v = 0;
  for (size_t i = 0; i < kGradients.size(); ++i) {
    const double t = static_cast<double>(i) + 1;
    const double g = kGradients[i];
    theta = theta - LearningRate(i) * weight_decay * theta;
    m = beta1 * m + (1 - beta1) * g;
    v = beta2 * v + (1 - beta2) * g * g;
    const double m_hat = m / (1 - std::pow(beta1, t));
    const double v_hat = v / (1 - std::pow(beta2, t));
    theta = theta - LearningRate(i) * m_hat / (std::sqrt(v_hat) + eps);
    weights.push_back(theta);
  }
  return weights;
}

TEST(AdamW, StepsAsTorchDoes) {
  for (const auto& [beta1, beta2] : {std::pair(0.9, 0.999), std::pair(0.0, 0.5), std::pair(0.95, 0.1)}) {
    for (const double eps : {1e-8, 0.1}) {
      for (const double weight_decay : {0.0, 0.01, 1.0}) {
        const OptimizerParams params = {
            .kind = OptimizerKind::kAdamW, .weight_decay = weight_decay, .beta1 = beta1, .beta2 = beta2, .eps = eps};
        std::vector<double> weights;
        double weight = kFirstWeight;
        double first = 0, second = 0;
        for (size_t i = 0; i < kGradients.size(); ++i) {
          const AdamWConstants<ScalarOps<double>> k(kOps,
                                                    UpdateRule::At(params, LearningRate(i), static_cast<int64_t>(i)));
          weight = AdamWUpdate(kOps, k, weight, kGradients[i], first, second);
          weights.push_back(weight);
        }
        EXPECT_THAT(weights,
                    testing::Pointwise(testing::DoubleNear(1e-13), TorchAdamW(beta1, beta2, eps, weight_decay)))
            << "betas " << beta1 << ", " << beta2 << ", eps " << eps << ", weight decay " << weight_decay;
      }
    }
  }
}

TEST(AdamW, DividesByTheSmallestEpsilonThatASpecAllows) {
  const OptimizerParams params = {.kind = OptimizerKind::kAdamW, .eps = 1e-37};
  const ScalarOps<float> ops;
  const AdamWConstants<ScalarOps<float>> k(ops, UpdateRule::At(params, 0.1, 0));
  float first = 0, second = 0;
  EXPECT_EQ(AdamWUpdate(ops, k, 0.5F, 0.0F, first, second), 0.5F) << "no gradient, no step";
}

TEST(OptimizerParams, NameTheStateThatTheyNeed) {
  using testing::ElementsAre;
  EXPECT_THAT(OptimizerParams().StateNames(), ElementsAre());
  EXPECT_THAT(OptimizerParams{.momentum = 0.9}.StateNames(), ElementsAre("momentum"));
  EXPECT_THAT(OptimizerParams{.kind = OptimizerKind::kAdamW}.StateNames(), ElementsAre("exp_avg", "exp_avg_sq"));
}

}  // namespace
}  // namespace shardmax
