#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "client/cli/plot/axis.h"
#include "client/cli/plot/curve.h"
#include "client/cli/plot/job_picture.h"
#include "client/cli/plot/picture.h"

namespace shardmax {
namespace {

using ::testing::ElementsAre;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<std::string> Labels(const Axis& axis) {
  std::vector<std::string> labels;
  for (const Tick& tick : axis.ticks()) labels.push_back(tick.label);
  return labels;
}

TEST(AxisTest, TicksAreRoundAndTellApart) {
  EXPECT_THAT(Labels(Axis::Linear(0, 1, 5)), ElementsAre("0.0", "0.2", "0.4", "0.6", "0.8", "1.0"));
  EXPECT_THAT(Labels(Axis::Linear(-0.3, 0.7, 5)), ElementsAre("-0.2", "0.0", "0.2", "0.4", "0.6"));
  EXPECT_THAT(Labels(Axis::Linear(11.2, 38.9, 5)), ElementsAre("20", "30"));
  EXPECT_THAT(Labels(Axis::Linear(0.0101, 0.0109, 4)), ElementsAre("0.0102", "0.0104", "0.0106", "0.0108"));
  EXPECT_THAT(Labels(Axis::Percent(0.981, 0.99, 5)), ElementsAre("98.2%", "98.4%", "98.6%", "98.8%", "99.0%"));
  EXPECT_THAT(Labels(Axis::Percent(0, 1, 5)), ElementsAre("0%", "20%", "40%", "60%", "80%", "100%"));
}

TEST(AxisTest, StepsAreWholeAndShort) {
  EXPECT_THAT(Labels(Axis::Steps(0, 3, 10)), ElementsAre("0", "1", "2", "3"));
  EXPECT_THAT(Labels(Axis::Steps(0, 5000, 5)), ElementsAre("0", "1000", "2000", "3000", "4000", "5000"));
  EXPECT_THAT(Labels(Axis::Steps(0, 100'000, 5)), ElementsAre("0", "20k", "40k", "60k", "80k", "100k"));
  EXPECT_THAT(Labels(Axis::Steps(0, 2'000'000, 4)), ElementsAre("0", "500k", "1.0M", "1.5M", "2.0M"));
}

TEST(AxisTest, PowersOfTenAreTheTicksOfALogarithmicAxis) {
  EXPECT_THAT(Labels(Axis::Log(1e-6, 1)), ElementsAre("10⁻⁶", "10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1", "1"));
  EXPECT_THAT(Labels(Axis::Log(3e-4, 3e-2)), ElementsAre("5·10⁻⁴", "0.001", "0.002", "0.005", "0.01", "0.02"));
}

TEST(AxisTest, EveryRangeHasTicksWithinIt) {
  const std::vector<std::pair<double, double>> ranges = {{0, 0},         {5, 5},    {-3, -3},   {0.001, 0.002},
                                                         {1e9, 1e9 + 1}, {0, 1e15}, {-1e-9, 0}, {0.1, 0.1 + 1e-17}};
  for (const auto& [low, high] : ranges) {
    for (const Axis& axis : {Axis::Linear(low, high, 5), Axis::Steps(low, high, 5), Axis::Percent(low, high, 5)}) {
      EXPECT_GE(axis.ticks().size(), 1) << low << " to " << high;
      EXPECT_LE(axis.ticks().size(), 12) << low << " to " << high;
      for (const Tick& tick : axis.ticks()) {
        EXPECT_GE(axis.Place(tick.value), -1e-6) << low << " to " << high;
        EXPECT_LE(axis.Place(tick.value), 1 + 1e-6) << low << " to " << high;
      }
    }
  }
  for (const auto& [low, high] : {std::pair(1e-9, 1e-9), std::pair(1e-12, 1e3), std::pair(0.4, 0.6)}) {
    const Axis axis = Axis::Log(low, high);
    EXPECT_GE(axis.ticks().size(), 1) << low << " to " << high;
    EXPECT_LE(axis.ticks().size(), 12) << low << " to " << high;
  }
}

TEST(AxisTest, ValuesWithoutAPlaceAreGaps) {
  EXPECT_DOUBLE_EQ(Axis::Linear(2, 4, 5).Place(3), 0.5);
  EXPECT_DOUBLE_EQ(Axis::Log(0.01, 1).Place(0.1), 0.5);
  EXPECT_TRUE(std::isnan(Axis::Log(0.01, 1).Place(0)));
  EXPECT_TRUE(std::isnan(Axis::Linear(0, 1, 5).Place(INFINITY)));
}

TEST(CurveTest, SmoothingAveragesAWindowAndSkipsWhatIsNotFinite) {
  Curve curve;
  for (int i = 0; i < 100; ++i) curve.push_back({static_cast<double>(i), i % 2 == 0 ? 1.0 : 3.0});
  const Curve smooth = Smoothed(curve, 0.1);
  ASSERT_EQ(smooth.size(), 100);
  EXPECT_NEAR(smooth[50].y, 2, 0.1);
  EXPECT_DOUBLE_EQ(Smoothed(curve, 0)[3].y, 3);
  curve[50].y = kNan;
  EXPECT_NEAR(Smoothed(curve, 0.1)[50].y, 2.2, 0.2);
  EXPECT_TRUE(std::isnan(Smoothed({{0, kNan}}, 0.1)[0].y));
}

TEST(CurveTest, ThinningKeepsThePeaks) {
  Curve curve;
  for (int i = 0; i < 100'000; ++i) curve.push_back({static_cast<double>(i), std::sin(i * 0.001)});
  curve[77'777].y = 9;
  curve[33'333].y = -9;
  const Curve thin = Thinned(curve, 500);
  EXPECT_LE(thin.size(), 1000);
  EXPECT_GE(thin.size(), 900);
  const auto by_y = [](const Point& a, const Point& b) { return a.y < b.y; };
  EXPECT_EQ(std::max_element(thin.begin(), thin.end(), by_y)->y, 9);
  EXPECT_EQ(std::min_element(thin.begin(), thin.end(), by_y)->y, -9);
  EXPECT_TRUE(std::is_sorted(thin.begin(), thin.end(), [](const Point& a, const Point& b) { return a.x < b.x; }));
  EXPECT_EQ(Thinned({{0, 1}, {1, 2}}, 500).size(), 2);
}

v1::StepMetrics Step(int step, double loss) {
  v1::StepMetrics metrics;
  metrics.set_step(step);
  metrics.set_loss(loss);
  return metrics;
}

TEST(JobPictureTest, TheLaterLineOfAStepCounts) {
  const Picture picture = JobPicture({}, {Step(1, 9), Step(2, 8), Step(3, 7), Step(2, 6), Step(3, 5)});
  ASSERT_EQ(picture.top.curve.size(), 3);
  EXPECT_EQ(picture.top.curve[1].y, 6);
  EXPECT_EQ(picture.top.curve[2].y, 5);
  EXPECT_EQ(picture.last_x, 3);
}

TEST(JobPictureTest, OnlyStepsWithValidationAreInTheAccuracy) {
  v1::StepMetrics validated = Step(2, 1);
  validated.set_validation_top1(0.98765);
  const Picture picture = JobPicture({}, {Step(1, 1), validated, Step(3, 1)});
  EXPECT_EQ(picture.below[0].curve.size(), 1);
  EXPECT_EQ(picture.below[0].last_label, "98.77%");
}

TEST(JobPictureTest, TheTitleSaysWhatWasTrained) {
  v1::Job job;
  job.set_id("glyphs-1");
  job.set_state(v1::RUNNING);
  job.set_total_steps(5000);
  job.mutable_spec()->mutable_train()->set_num_classes(8000);
  job.mutable_spec()->mutable_train()->set_dim(128);
  job.mutable_spec()->mutable_train()->mutable_loss()->set_preset(v1::SV_AM_SOFTMAX);
  const Picture picture = JobPicture(job, {Step(1200, 2.5)});
  EXPECT_EQ(picture.title, "glyphs-1: SV_AM_SOFTMAX, 8,000 classes, D = 128");
  EXPECT_EQ(picture.subtitle, "RUNNING, step 1,200 of 5,000, loss 2.5000");
}

TEST(PictureTest, EveryKindOfDataGivesAPng) {
  const std::string magic = "\x89PNG\r\n\x1a\n";
  std::vector<std::vector<v1::StepMetrics>> cases = {{}, {Step(1, 2)}, {Step(1, kNan), Step(2, INFINITY)}};
  cases.emplace_back();
  for (int i = 1; i <= 20'000; ++i) cases.back().push_back(Step(i, i % 1000 == 0 ? kNan : 10.0 / i));
  for (const auto& metrics : cases) {
    const auto png = DrawPng(JobPicture({}, metrics));
    ASSERT_TRUE(png.ok()) << png.status();
    EXPECT_EQ(png->substr(0, 8), magic);
    EXPECT_GT(png->size(), 10'000);
  }
}

}  // namespace
}  // namespace shardmax
