#include "worker/loss/loss_params.h"

#include <gmock/gmock.h>

namespace shardmax {
namespace {

constexpr LossParams kLoss = {.scale = 64, .m1 = 4, .m2 = 0.5, .m3 = 0.35, .t = 1.2, .gamma = 2, .keep = 0.9};

TEST(WarmedUp, StartsNeutral) {
  const LossParams loss = WarmedUp(kLoss, 0, 10);
  EXPECT_EQ(loss.m1, 1);
  EXPECT_EQ(loss.m2, 0);
  EXPECT_EQ(loss.m3, 0);
  EXPECT_EQ(loss.t, 1);
}

TEST(WarmedUp, GrowsLinearly) {
  const LossParams loss = WarmedUp(kLoss, 3, 10);
  EXPECT_DOUBLE_EQ(loss.m1, 1.9);
  EXPECT_DOUBLE_EQ(loss.m2, 0.15);
  EXPECT_DOUBLE_EQ(loss.m3, 0.105);
  EXPECT_DOUBLE_EQ(loss.t, 1.06);
}

TEST(WarmedUp, LeavesWhatIsNoMarginAlone) {
  const LossParams loss = WarmedUp(kLoss, 3, 10);
  EXPECT_EQ(loss.scale, 64);
  EXPECT_EQ(loss.gamma, 2);
  EXPECT_EQ(loss.keep, 0.9);
}

TEST(WarmedUp, ArrivesExactlyAndStays) {
  for (const int64_t step : {10, 11, 1'000'000}) {
    const LossParams loss = WarmedUp(kLoss, step, 10);
    EXPECT_EQ(loss.m1, 4);
    EXPECT_EQ(loss.m2, 0.5);
    EXPECT_EQ(loss.m3, 0.35);
    EXPECT_EQ(loss.t, 1.2);
  }
  EXPECT_EQ(WarmedUp(kLoss, 0, 0).t, 1.2);
}

}  // namespace
}  // namespace shardmax
