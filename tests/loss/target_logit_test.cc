#include "worker/loss/target_logit.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "tests/support/loss_cases.h"

namespace shardmax {
namespace {

using std::numbers::pi;

// Margins that pass pi not at all, once and often.
std::vector<LossParams> MarginGrid() {
  std::vector<LossParams> grid;
  for (const double m1 : {1.0, 1.35, 2.0, 4.0, 16.0}) {
    for (const double m2 : {0.0, 0.5, 1.7, pi}) {
      for (const double m3 : {0.0, 0.35, 2.0}) grid.push_back({.m1 = m1, .m2 = m2, .m3 = m3});
    }
  }
  return grid;
}

std::string Describe(const LossParams& loss) {
  return testing::PrintToString(std::vector<double>{loss.m1, loss.m2, loss.m3}) + " extension " +
         std::to_string(static_cast<int>(loss.extension));
}

TEST(TargetLogit, HasTheValuesOfTheFormula) {
  struct Known {
    LossParams loss;
    double cosine;
    double value;
  };
  // Worked out by hand, with theta = 0, pi / 6, pi / 3, pi / 2, 2 pi / 3 and pi.
  const double root3 = std::sqrt(3.0L);
  const std::vector<Known> table = {
      {{}, 0.5, 0.5},
      {{}, -1, -1},
      {{.m3 = 0.35}, 0.25, -0.1},
      {{.m1 = 4}, 1, 1},
      {{.m1 = 4}, std::cos(pi / 6), -0.5},                            // phi = 2 pi / 3
      {{.m1 = 4}, 0.5, -1.5},                                         // phi = 4 pi / 3, j = 1: 0.5 - 2
      {{.m1 = 4}, -0.5, -4.5},                                        // phi = 8 pi / 3, j = 2: -0.5 - 4
      {{.m1 = 2}, std::cos(5 * pi / 6), -2.5},                        // phi = 5 pi / 3, j = 1: -0.5 - 2
      {{.m2 = pi / 6}, std::cos(pi / 6), 0.5},                        // phi = pi / 3
      {{.m2 = pi / 2}, -0.5, root3 / 2 - 2},                          // phi = 7 pi / 6, j = 1
      {{.m1 = 2, .m2 = pi / 6, .m3 = 0.25}, 0.5, -root3 / 2 - 0.25},  // phi = 5 pi / 6
      {{.m2 = pi / 6, .extension = Extension::kEasy}, std::cos(pi / 6), 0.5},
      {{.m2 = pi / 6, .m3 = 0.35, .extension = Extension::kEasy}, 0, 0},
      {{.m1 = 4, .m3 = 0.35, .extension = Extension::kEasy}, -0.25, -0.25},
      {{.m2 = pi / 6, .extension = Extension::kLinear}, 0.5, 0},
      {{.m2 = pi / 6, .m3 = 0.25, .extension = Extension::kLinear}, -0.9, -0.9 - pi / 12},
  };
  for (const Known& known : table) {
    EXPECT_NEAR(EvaluateTargetLogit(known.loss, known.cosine).value, known.value, 1e-14)
        << Describe(known.loss) << " at cosine " << known.cosine;
  }
}

// The formula in long double, as cos(phi - j pi) - 2j - m3 with j found by counting.
long double LongDoubleValue(const LossParams& loss, double cosine) {
  const long double pi_l = std::numbers::pi_v<long double>;
  long double rest = loss.m1 * std::acos(static_cast<long double>(cosine)) + loss.m2;
  long double dropped = loss.m3;
  while (rest >= pi_l) {
    rest -= pi_l;
    dropped += 2;
  }
  return std::cos(rest) - dropped;
}

TEST(TargetLogit, IsAccurateForEveryMargin) {
  for (const LossParams& loss : MarginGrid()) {
    for (double cosine = -1; cosine <= 1; cosine += 1.0 / 64) {
      EXPECT_NEAR(EvaluateTargetLogit(loss, cosine).value, static_cast<double>(LongDoubleValue(loss, cosine)), 1e-13)
          << Describe(loss) << " at cosine " << cosine;
    }
  }
}

TEST(TargetLogit, FallsWithTheAngleOverItsWholeRange) {
  for (const LossParams& loss : MarginGrid()) {
    double before = HUGE_VAL;
    constexpr int kSteps = 5000;
    for (int i = 0; i <= kSteps; ++i) {
      const double theta = pi * i / kSteps;
      const double value = EvaluateTargetLogit(loss, std::cos(theta)).value;
      // Where the cosine is flat, near a multiple of pi, a step changes less than rounding.
      ASSERT_LE(value, before + 1e-14) << Describe(loss) << " at angle " << theta;
      before = value;
    }
    EXPECT_LE(before, 1 - loss.m3 - 2 * std::floor(loss.m1)) << Describe(loss);
  }
}

TEST(TargetLogit, IsContinuousWhereTheAnglePassesAMultipleOfPi) {
  for (const LossParams& loss : MarginGrid()) {
    for (int j = 1; j < 20; ++j) {
      const double theta = (j * pi - loss.m2) / loss.m1;
      if (theta <= 0.01 || theta >= pi - 0.01) continue;
      const TargetLogit before = EvaluateTargetLogit(loss, std::cos(theta - 1e-7));
      const TargetLogit after = EvaluateTargetLogit(loss, std::cos(theta + 1e-7));
      EXPECT_NEAR(before.value, after.value, 1e-9) << Describe(loss) << " at j " << j;
      EXPECT_NEAR(before.value, 1 - 2 * j - loss.m3, 1e-9) << Describe(loss) << " at j " << j;
      EXPECT_NEAR(before.derivative, after.derivative, 1e-2) << Describe(loss) << " at j " << j;
    }
  }
}

TEST(TargetLogit, HasTheDerivativeOfItsValue) {
  std::vector<LossParams> losses = MarginGrid();
  for (const LossCase& c : AllLossCases()) losses.push_back(c.params);
  for (const LossParams& loss : losses) {
    for (const double cosine : {-0.999, -0.95, -0.71, -0.3, 0.02, 0.4, 0.77, 0.92, 0.9999}) {
      const double h = 1e-7;
      const double slope =
          (EvaluateTargetLogit(loss, cosine + h).value - EvaluateTargetLogit(loss, cosine - h).value) / (2 * h);
      EXPECT_NEAR(EvaluateTargetLogit(loss, cosine).derivative, slope, 1e-5 * (1 + std::abs(slope)))
          << Describe(loss) << " at cosine " << cosine;
    }
  }
}

TEST(TargetLogit, NeverHasANegativeOrInfiniteDerivative) {
  for (const LossParams& loss : MarginGrid()) {
    for (const double cosine : {-1.0, -1 + 1e-16, -1 + 1e-12, -1 + 1e-9, -1 + 1e-7, 1 - 1e-7, 1 - 1e-9, 1.0}) {
      for (const Extension extension : {Extension::kMonotone, Extension::kEasy, Extension::kLinear}) {
        LossParams extended = loss;
        extended.extension = extension;
        const TargetLogit target = EvaluateTargetLogit(extended, cosine);
        EXPECT_TRUE(std::isfinite(target.value)) << Describe(extended) << " at cosine " << cosine;
        EXPECT_TRUE(std::isfinite(target.derivative)) << Describe(extended) << " at cosine " << cosine;
        EXPECT_GE(target.derivative, 0) << Describe(extended) << " at cosine " << cosine;
      }
    }
  }
}

TEST(TargetLogit, OfThePlainLossHasDerivativeOneAtBothEnds) {
  for (const double cosine : {-1.0, -0.9999999, 0.0, 0.9999999, 1.0}) {
    EXPECT_NEAR(EvaluateTargetLogit({}, cosine).derivative, 1, 1e-6) << cosine;
  }
}

TEST(TargetLogit, TakesACosineThatRoundingPutOutsideItsRange) {
  for (const LossCase& c : AllLossCases()) {
    EXPECT_EQ(EvaluateTargetLogit(c.params, 1 + 1e-6).value, EvaluateTargetLogit(c.params, 1).value) << c.name;
    EXPECT_EQ(EvaluateTargetLogit(c.params, -1 - 1e-6).value, EvaluateTargetLogit(c.params, -1).value) << c.name;
  }
}

TEST(TargetLogit, EasyLeavesObtuseAnglesAlone) {
  const LossParams loss = {.m1 = 2, .m2 = 0.5, .m3 = 0.35, .extension = Extension::kEasy};
  for (const double cosine : {-1.0, -0.5, 0.0}) {
    EXPECT_EQ(EvaluateTargetLogit(loss, cosine).value, cosine);
    EXPECT_EQ(EvaluateTargetLogit(loss, cosine).derivative, 1);
  }
  LossParams monotone = loss;
  monotone.extension = Extension::kMonotone;
  EXPECT_EQ(EvaluateTargetLogit(loss, 0.25).value, EvaluateTargetLogit(monotone, 0.25).value);
}

TEST(TargetLogit, LinearContinuesPastPiWithSlopeOne) {
  const LossParams loss = {.m2 = 0.5, .m3 = 0.1, .extension = Extension::kLinear};
  const double at_pi = std::cos(pi - 0.5);
  EXPECT_NEAR(EvaluateTargetLogit(loss, at_pi - 0.05).value, at_pi - 0.05 - 0.5 * std::sin(0.5), 1e-14);
  EXPECT_EQ(EvaluateTargetLogit(loss, at_pi - 0.05).derivative, 1);
  EXPECT_NEAR(EvaluateTargetLogit(loss, at_pi + 1e-9).value, -1.1, 1e-8);
}

}  // namespace
}  // namespace shardmax
