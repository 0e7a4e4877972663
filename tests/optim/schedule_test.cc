#include "worker/optim/schedule.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numbers>

namespace shardmax {
namespace {

TEST(Schedule, IsConstantWithoutACurve) {
  const Schedule schedule = {.base_lr = 0.3, .total_steps = 5};
  for (int64_t step = 0; step < 5; ++step) EXPECT_EQ(schedule.At(step), 0.3);
}

TEST(Schedule, WarmsUpLinearlyToTheBaseOnEveryCurve) {
  for (const ScheduleCurve curve :
       {ScheduleCurve::kConstant, ScheduleCurve::kCosine, ScheduleCurve::kStep, ScheduleCurve::kPolynomial}) {
    const Schedule schedule = {.curve = curve, .base_lr = 0.4, .warmup_steps = 4, .total_steps = 20, .end_lr = 0.1};
    EXPECT_DOUBLE_EQ(schedule.At(0), 0.1);
    EXPECT_DOUBLE_EQ(schedule.At(1), 0.2);
    EXPECT_DOUBLE_EQ(schedule.At(2), 0.3);
    EXPECT_DOUBLE_EQ(schedule.At(3), 0.4);
    EXPECT_DOUBLE_EQ(schedule.At(4), 0.4);
  }
}

TEST(Schedule, FollowsHalfACosine) {
  const Schedule schedule = {
      .curve = ScheduleCurve::kCosine, .base_lr = 1, .warmup_steps = 10, .total_steps = 110, .end_lr = 0.2};
  EXPECT_DOUBLE_EQ(schedule.At(10), 1);
  EXPECT_NEAR(schedule.At(10 + 25), 0.2 + 0.8 * (1 + std::sqrt(0.5)) / 2, 1e-15);
  EXPECT_NEAR(schedule.At(10 + 50), 0.6, 1e-15);
  EXPECT_NEAR(schedule.At(109), 0.2 + 0.8 * (1 + std::cos(0.99 * std::numbers::pi)) / 2, 1e-15);
  EXPECT_NEAR(schedule.At(109), 0.2, 2e-4);
}

TEST(Schedule, FollowsAPolynomial) {
  Schedule schedule = {.curve = ScheduleCurve::kPolynomial, .base_lr = 1, .warmup_steps = 2, .total_steps = 12};
  EXPECT_DOUBLE_EQ(schedule.At(2), 1);
  EXPECT_DOUBLE_EQ(schedule.At(7), 0.5);
  EXPECT_NEAR(schedule.At(11), 0.1, 1e-15);
  schedule.power = 2;
  schedule.end_lr = 0.5;
  EXPECT_DOUBLE_EQ(schedule.At(2), 1);
  EXPECT_DOUBLE_EQ(schedule.At(7), 0.5 + 0.5 * 0.25);
  EXPECT_NEAR(schedule.At(11), 0.5 + 0.5 * 0.01, 1e-15);
}

TEST(Schedule, FallsAtEachMilestone) {
  const Schedule schedule = {
      .curve = ScheduleCurve::kStep, .base_lr = 8, .total_steps = 100, .gamma = 0.5, .milestones = {10, 20, 21}};
  EXPECT_EQ(schedule.At(9), 8);
  EXPECT_EQ(schedule.At(10), 4);
  EXPECT_EQ(schedule.At(19), 4);
  EXPECT_EQ(schedule.At(20), 2);
  EXPECT_EQ(schedule.At(21), 1);
  EXPECT_EQ(schedule.At(99), 1);
}

TEST(Schedule, CountsAMilestoneInTheWarmUpFromItsEndOn) {
  const Schedule schedule = {.curve = ScheduleCurve::kStep,
                             .base_lr = 8,
                             .warmup_steps = 4,
                             .total_steps = 10,
                             .gamma = 0.5,
                             .milestones = {2, 6}};
  EXPECT_EQ(schedule.At(3), 8);
  EXPECT_EQ(schedule.At(4), 4);
  EXPECT_EQ(schedule.At(6), 2);
}

TEST(Schedule, StaysInAWarmUpThatOutlastsTheJob) {
  for (const ScheduleCurve curve :
       {ScheduleCurve::kConstant, ScheduleCurve::kCosine, ScheduleCurve::kStep, ScheduleCurve::kPolynomial}) {
    for (const int64_t total_steps : {4, 8}) {
      const Schedule schedule = {.curve = curve, .base_lr = 0.8, .warmup_steps = 8, .total_steps = total_steps};
      for (int64_t step = 0; step < total_steps; ++step) {
        EXPECT_DOUBLE_EQ(schedule.At(step), 0.1 * static_cast<double>(step + 1));
      }
    }
  }
}

TEST(Schedule, DoesNotReachAMilestoneBeyondTheJob) {
  const Schedule schedule = {
      .curve = ScheduleCurve::kStep, .base_lr = 8, .total_steps = 10, .gamma = 0.5, .milestones = {5, 10, 11}};
  EXPECT_EQ(schedule.At(9), 4);
}

}  // namespace
}  // namespace shardmax
