#include "worker/loss/class_logit.h"

#include <gmock/gmock.h>

#include <cmath>

namespace shardmax {
namespace {

constexpr LossParams kLoss = {.scale = 20, .t = 1.5};
constexpr ScalarOps<double> kOps;

ShiftedLogit<double> Row(double threshold, double shift) {
  const ClassLogitScale scale = ScaleOf(kLoss);
  return {threshold, scale.plain_slope, -shift, scale.support_vector_slope, scale.support_vector_offset - shift};
}

// The paper's h(t, cos, I) e^{s cos} with h = e^{s (t - 1) (cos + 1) I}.
double PaperTerm(double cosine, bool is_support_vector) {
  return std::exp(20 * (1.5 - 1) * (cosine + 1) * (is_support_vector ? 1 : 0)) * std::exp(20 * cosine);
}

TEST(ClassLogit, IsThePapersFactorAsALogit) {
  for (const double cosine : {-1.0, -0.3, 0.0, 0.2, 0.9, 1.0}) {
    for (const double threshold : {-2.0, 0.1, 1.5}) {
      const double term = PaperTerm(cosine, cosine > threshold);
      EXPECT_NEAR(Logit(kOps, ScaleOf(kLoss), threshold, cosine), std::log(term), 1e-12) << cosine;
      const ShiftedLogit<double> row = Row(threshold, 3);
      EXPECT_NEAR(ExpLogit(kOps, row, cosine, IsSupportVector(kOps, row, cosine)), term * std::exp(-3), 1e-12 * term);
    }
  }
}

TEST(ClassLogit, NeedsMoreThanTheThresholdForASupportVector) {
  EXPECT_FALSE(IsSupportVector(kOps, Row(0.25, 0), 0.25));
  EXPECT_TRUE(IsSupportVector(kOps, Row(0.25, 0), std::nextafter(0.25, 1)));
}

TEST(ClassLogit, IsPlainForTOne) {
  const LossParams plain = {.scale = 20};
  EXPECT_EQ(Logit(kOps, ScaleOf(plain), -1.0, 0.5), 10);
  EXPECT_EQ(Logit(kOps, ScaleOf(plain), 1.0, 0.5), 10);
}

TEST(ClassLogit, HasTheGradientOfItsExponential) {
  const double row_scale = 0.125;
  for (const double cosine : {-0.9, 0.1, 0.8}) {
    for (const double threshold : {0.0, 0.5}) {
      const ShiftedLogit<double> row = Row(threshold, 10);
      const auto value = [&](double c) { return row_scale * ExpLogit(kOps, row, c, cosine > threshold); };
      const double slope = (value(cosine + 1e-6) - value(cosine - 1e-6)) / 2e-6;
      const double gradient = ClassCosineGradient(kOps, row, row_scale, cosine);
      EXPECT_NEAR(gradient, slope, 1e-8 * std::abs(slope)) << cosine << " over " << threshold;
    }
  }
}

}  // namespace
}  // namespace shardmax
