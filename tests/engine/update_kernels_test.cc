// The CPU engine's kernel of the optimizers, on every instruction set.
#include <gmock/gmock.h>
#include <hwy/targets.h>

#include <cmath>
#include <vector>

#include "tests/engine/kernels_on_targets.h"
#include "tests/support/compare.h"
#include "worker/base/aligned_buffer.h"
#include "worker/engine/cpu/tile_kernels.h"

namespace shardmax {
namespace {

class UpdateRows : public Kernels {
 protected:
  // Three steps on rows of every length around the width of a vector, against the scalar formulas in float64. The
  // floats behind each row must stay.
  void ExpectScalarResult(const OptimizerParams& params) {
    const size_t states = params.StateNames().size();
    for (int64_t n : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 130}) {
      std::vector<float> weights = Draw(n, -1, 1), first(n), second(n);
      std::vector<double> wide(weights.begin(), weights.end()), wide_first(n), wide_second(n);
      for (std::vector<float>* row : {&weights, &first, &second}) row->push_back(42);
      for (int64_t step = 0; step < 3; ++step) {
        const UpdateRule rule = UpdateRule::At(params, 0.1, step);
        const std::vector<float> gradients = Draw(n, -1, 1);
        const float along = 0.75F, inverse_norm = 0.5F;
        UpdateRow(rule, {.gradients = gradients.data(),
                         .along = along,
                         .inverse_norm = inverse_norm,
                         .n = n,
                         .weights = weights.data(),
                         .first = {.float32 = states > 0 ? first.data() : nullptr},
                         .second = {.float32 = states > 1 ? second.data() : nullptr}});
        for (int64_t i = 0; i < n; ++i) {
          const double gradient = static_cast<double>(gradients[i]) - 0.75 * 0.5 * wide[i];
          wide[i] = Scalar(rule, wide[i], gradient, wide_first[i], wide_second[i]);
        }
      }
      for (std::vector<float>* row : {&weights, &first, &second}) {
        EXPECT_EQ(row->back(), 42) << "written behind the row of " << n;
        row->pop_back();
      }
      EXPECT_TRUE(MatricesAgree(weights, wide, n, {1e-6})) << "weights of " << n;
      if (states > 0) {
        EXPECT_TRUE(MatricesAgree(first, wide_first, n, {1e-6})) << "first state of " << n;
      }
      if (states > 1) {
        EXPECT_TRUE(MatricesAgree(second, wide_second, n, {1e-6})) << "second state of " << n;
      }
    }
  }

 private:
  static double Scalar(const UpdateRule& rule, double weight, double gradient, double& first, double& second) {
    const ScalarOps<double> ops;
    if (rule.params.kind == OptimizerKind::kAdamW) {
      return AdamWUpdate(ops, AdamWConstants<ScalarOps<double>>(ops, rule), weight, gradient, first, second);
    }
    const SgdConstants<ScalarOps<double>> k(ops, rule);
    if (rule.params.momentum == 0) return SgdUpdate(ops, k, weight, gradient);
    if (rule.params.nesterov) return SgdMomentumUpdate<true>(ops, k, weight, gradient, first);
    return SgdMomentumUpdate<false>(ops, k, weight, gradient, first);
  }
};

TEST_P(UpdateRows, WithPlainSgd) {
  ExpectScalarResult({.weight_decay = 0.01});
}

TEST_P(UpdateRows, WithMomentum) {
  ExpectScalarResult({.weight_decay = 0.01, .momentum = 0.9});
}

TEST_P(UpdateRows, WithNesterov) {
  ExpectScalarResult({.weight_decay = 0.01, .momentum = 0.9, .nesterov = true});
}

TEST_P(UpdateRows, WithAdamW) {
  ExpectScalarResult({.kind = OptimizerKind::kAdamW, .weight_decay = 0.01, .eps = 1e-3});
}

// State in bfloat16 is what the scalar rounding makes of state in float32, bit for bit, on every instruction set.
TEST_P(UpdateRows, RoundStateToBfloat16AsTheScalarFormulaDoes) {
  for (const OptimizerParams& params : {OptimizerParams{.weight_decay = 0.01, .momentum = 0.9},
                                        OptimizerParams{.kind = OptimizerKind::kAdamW, .eps = 1e-3}}) {
    const bool two = params.StateNames().size() > 1;
    for (const int64_t n : {1, 5, 15, 16, 17, 33, 130}) {
      const UpdateRule rule = UpdateRule::At(params, 0.1, 3);
      const std::vector<float> gradients = Draw(n, -1, 1);
      std::vector<float> weights = Draw(n, -1, 1), first = Draw(n, 0, 1), second = Draw(n, 0, 1);
      std::vector<uint16_t> low_first(n + 1, 42), low_second(n + 1, 42);
      for (int64_t i = 0; i < n; ++i) {
        low_first[i] = RoundToNearestBfloat16(first[i]);
        low_second[i] = RoundToNearestBfloat16(second[i]);
        first[i] = FromBfloat16(low_first[i]);
        second[i] = FromBfloat16(low_second[i]);
      }
      std::vector<float> low_weights = weights;
      const RowUpdate wide = {.gradients = gradients.data(),
                              .along = 0.75F,
                              .inverse_norm = 0.5F,
                              .n = n,
                              .weights = weights.data(),
                              .first = {.float32 = first.data()},
                              .second = {.float32 = two ? second.data() : nullptr}};
      RowUpdate low = wide;
      low.weights = low_weights.data();
      low.first = {.bfloat16 = low_first.data()};
      low.second = {.bfloat16 = two ? low_second.data() : nullptr};
      low.noise = RowNoise(rule.noise, 12345);
      UpdateRow(rule, wide);
      UpdateRow(rule, low);
      EXPECT_EQ(low_weights, weights);
      for (int64_t i = 0; i < n; ++i) {
        const uint32_t noise = ElementNoise(low.noise, static_cast<uint32_t>(i));
        EXPECT_EQ(low_first[i], RoundStochastically(first[i], noise & 0xFFFFU)) << n << ", " << i;
        if (two) {
          EXPECT_EQ(low_second[i], RoundStochastically(second[i], noise >> 16U)) << n << ", " << i;
        }
      }
      EXPECT_EQ(low_first[n], 42) << "written behind the row of " << n;
      EXPECT_EQ(low_second[n], 42) << "written behind the row of " << n;
    }
  }
}

TEST_P(UpdateRows, CatchUpByAMapOfSkippedSteps) {
  const DecayMap map = {0.75, -0.25, 0.125, 0.5};
  for (const int64_t n : {1, 15, 16, 33}) {
    std::vector<float> weights = Draw(n, -1, 1), momentum = Draw(n, -1, 1);
    std::vector<double> expected_weights, expected_momentum;
    std::vector<uint16_t> low(n);
    for (int64_t i = 0; i < n; ++i) {
      low[i] = RoundToNearestBfloat16(momentum[i]);
      momentum[i] = FromBfloat16(low[i]);
      const double w = weights[i], m = momentum[i];
      expected_weights.push_back(0.75 * w - 0.25 * m);
      expected_momentum.push_back(0.125 * w + 0.5 * m);
    }
    const std::vector<float> before = weights;
    std::vector<float> low_weights = before, plain = before;
    RowUpdate row = {.gradients = nullptr,
                     .along = 0,
                     .inverse_norm = 0,
                     .n = n,
                     .weights = weights.data(),
                     .first = {.float32 = momentum.data()},
                     .second = {},
                     .noise = 77};
    CatchUpRow(map, row);
    EXPECT_TRUE(MatricesAgree(weights, expected_weights, n, {1e-6})) << n;
    EXPECT_TRUE(MatricesAgree(momentum, expected_momentum, n, {1e-6})) << n;
    row.weights = low_weights.data();
    row.first = {.bfloat16 = low.data()};
    CatchUpRow(map, row);
    EXPECT_EQ(low_weights, weights);
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_EQ(low[i], RoundStochastically(momentum[i], ElementNoise(77, static_cast<uint32_t>(i)) & 0xFFFFU)) << i;
    }
    row.weights = plain.data();
    row.first = {};
    CatchUpRow({.weight_of_weight = 0.5}, row);
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(plain[i], 0.5F * before[i]) << i;
  }
}

TEST_P(UpdateRows, OfTinyAndHugeWeights) {
  for (const float norm : {1e-30F, 1e-20F, 1e18F, 1e30F}) {
    // The gradient is along the weight but for its second element, and of size 1 / norm.
    std::vector<float> weights = {norm, 0};
    std::vector<float> momentum = {0, 0};
    const std::vector<float> gradients = {3 / norm, 2 / norm};
    UpdateRow(UpdateRule::At({.momentum = 0.9}, 0.1, 0), {.gradients = gradients.data(),
                                                          .along = 3 / norm,
                                                          .inverse_norm = 1 / norm,
                                                          .n = 2,
                                                          .weights = weights.data(),
                                                          .first = {.float32 = momentum.data()},
                                                          .second = {}});
    EXPECT_NEAR(momentum[0] * norm, 0, 1e-6) << norm;
    EXPECT_NEAR(momentum[1] * norm, 2, 1e-6) << norm;
  }
}
INSTANTIATE_TEST_SUITE_P(Targets, UpdateRows, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()), NameOfTarget);

}  // namespace
}  // namespace shardmax
