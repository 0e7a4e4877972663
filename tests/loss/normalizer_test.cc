#include "worker/loss/normalizer.h"

#include <gmock/gmock.h>

#include <cmath>
#include <random>
#include <vector>

namespace shardmax {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

double LogSum(const ShardPartial& partial) {
  return static_cast<double>(partial.max_logit) + std::log(partial.sum_exp);
}

TEST(Merge, LeavesTheNeutralElementOut) {
  const ShardPartial partial = {.sum_exp = 2.5, .max_logit = -3, .support_vectors = 4};
  for (const ShardPartial& merged : {Merge(partial, ShardPartial()), Merge(ShardPartial(), partial)}) {
    EXPECT_EQ(merged.sum_exp, 2.5);
    EXPECT_EQ(merged.max_logit, -3);
    EXPECT_EQ(merged.support_vectors, 4);
  }
  const ShardPartial nothing = Merge(ShardPartial(), ShardPartial());
  EXPECT_EQ(nothing.sum_exp, 0);
  EXPECT_EQ(nothing.max_logit, -kInfinity);
}

TEST(Merge, DoesNotDependOnOrderOrGrouping) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> logits(-60, 60);
  for (int trial = 0; trial < 200; ++trial) {
    const ShardPartial a = {1.5, logits(random), 1};
    const ShardPartial b = {1.0, logits(random), 10};
    const ShardPartial c = {700, logits(random), 100};
    const ShardPartial left = Merge(Merge(a, b), c);
    for (const ShardPartial& other : {Merge(a, Merge(b, c)), Merge(Merge(c, b), a), Merge(b, Merge(c, a))}) {
      EXPECT_NEAR(LogSum(left), LogSum(other), 1e-13);
      EXPECT_EQ(left.max_logit, other.max_logit);
      EXPECT_EQ(other.support_vectors, 111);
    }
  }
}

TEST(Merge, StaysFiniteForLogitsFarApart) {
  const ShardPartial merged = Merge({1, 1e6F, 0}, {1, -1e6F, 0});
  EXPECT_EQ(merged.sum_exp, 1);
  EXPECT_EQ(merged.max_logit, 1e6F);
}

// One other class of logit `other`; everything in long double.
struct LongDoubleRow {
  LongDoubleRow(double target, double other, double gamma) {
    const long double d = static_cast<long double>(other) - target;
    negative_log_p = d > 0 ? d + std::log1p(std::exp(-d)) : std::log1p(std::exp(d));
    q = 1 / (1 + std::exp(-d));
    p = 1 / (1 + std::exp(d));
    loss = std::pow(q, static_cast<long double>(gamma)) * negative_log_p;
    gradient = gamma == 0 ? 1
                          : std::pow(q, static_cast<long double>(gamma)) +
                                gamma * p * std::pow(q, static_cast<long double>(gamma) - 1) * negative_log_p;
  }
  long double negative_log_p, q, p, loss, gradient;
};

TEST(RowLoss, IsAccurateFromConvergedToHopeless) {
  for (const double gamma : {0.0, 0.25, 1.0, 2.0, 16.0}) {
    for (const double distance : {-600.0, -90.0, -40.0, -17.0, -1.0, 0.0, 1e-9, 1.0, 40.0, 700.0, 1e6}) {
      const double target = 20;
      const double other = target + distance;
      const RowLoss row = EvaluateRowLoss({1, static_cast<float>(other), 0}, target, gamma);
      const LongDoubleRow expected(target, static_cast<double>(static_cast<float>(other)), gamma);
      const auto near = [&](double actual, long double want, const char* what) {
        // Where float64 underflows, so may the loss.
        EXPECT_NEAR(actual, static_cast<double>(want), 1e-12 * static_cast<double>(want) + 1e-300)
            << what << ", gamma " << gamma << ", distance " << distance;
      };
      near(row.loss, expected.loss, "loss");
      near(row.other_share, expected.q, "1 - p");
      near(row.logit_gradient, expected.gradient, "gradient factor");
      near(row.log_normalizer, target + expected.negative_log_p, "log of the normaliser");
    }
  }
}

TEST(RowLoss, HasTheGradientOfItsLoss) {
  for (const double gamma : {0.0, 0.5, 1.0, 2.0}) {
    for (const double target : {-5.0, 0.0, 3.0}) {
      const ShardPartial others = {3.5, 1.25F, 0};
      const double h = 1e-6;
      const double slope =
          (EvaluateRowLoss(others, target + h, gamma).loss - EvaluateRowLoss(others, target - h, gamma).loss) / (2 * h);
      const RowLoss row = EvaluateRowLoss(others, target, gamma);
      EXPECT_NEAR(-row.logit_gradient * row.other_share, slope, 1e-8) << gamma << " at " << target;
    }
  }
}

TEST(RowLoss, WithoutOtherClassesIsZero) {
  for (const double gamma : {0.0, 2.0}) {
    const RowLoss row = EvaluateRowLoss(ShardPartial(), 12, gamma);
    EXPECT_EQ(row.loss, 0);
    EXPECT_EQ(row.other_share, 0);
    EXPECT_EQ(row.log_normalizer, 12);
    EXPECT_TRUE(std::isfinite(row.logit_gradient));
  }
}

}  // namespace
}  // namespace shardmax
