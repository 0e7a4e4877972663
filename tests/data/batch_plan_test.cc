#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "worker/data/dataset.h"

namespace shardmax {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

std::vector<int64_t> RowsOf(const BatchPlan& plan, int64_t step) {
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < plan.batch_rows(step); ++i) rows.push_back(plan.row_at(step, i));
  return rows;
}

TEST(BatchPlan, GoesThroughTheFileInOrder) {
  const BatchPlan plan(7, 3, false, 1);
  EXPECT_EQ(plan.steps_per_epoch(), 3);
  EXPECT_THAT(RowsOf(plan, 0), ElementsAre(0, 1, 2));
  EXPECT_THAT(RowsOf(plan, 1), ElementsAre(3, 4, 5));
  EXPECT_THAT(RowsOf(plan, 3), ElementsAre(0, 1, 2));
}

TEST(BatchPlan, UsesTheLastShortBatch) {
  const BatchPlan plan(7, 3, false, 1);
  EXPECT_EQ(plan.batch_rows(2), 1);
  EXPECT_THAT(RowsOf(plan, 2), ElementsAre(6));
  EXPECT_THAT(RowsOf(plan, 5), ElementsAre(6));
}

TEST(BatchPlan, HasNoShortBatchWhenTheSizeDivides) {
  const BatchPlan plan(6, 3, false, 1);
  EXPECT_EQ(plan.steps_per_epoch(), 2);
  EXPECT_EQ(plan.batch_rows(1), 3);
}

TEST(BatchPlan, BatchLargerThanTheFileIsTheFile) {
  const BatchPlan plan(2, 100, false, 1);
  EXPECT_EQ(plan.steps_per_epoch(), 1);
  EXPECT_THAT(RowsOf(plan, 4), ElementsAre(0, 1));
  EXPECT_EQ(plan.epoch_of(4), 4);
}

TEST(BatchPlan, ShuffleVisitsEveryRowOnceInEachEpoch) {
  const BatchPlan plan(7, 3, true, 1);
  for (int64_t epoch : {0, 1, 2}) {
    std::vector<int64_t> rows;
    for (int64_t step = 3 * epoch; step < 3 * epoch + 3; ++step) {
      EXPECT_EQ(plan.epoch_of(step), epoch);
      for (int64_t row : RowsOf(plan, step)) rows.push_back(row);
    }
    EXPECT_THAT(rows, UnorderedElementsAre(0, 1, 2, 3, 4, 5, 6)) << "epoch " << epoch;
  }
}

TEST(BatchPlan, ShuffleDependsOnSeedAndEpoch) {
  const BatchPlan plan(1000, 1000, true, 1);
  EXPECT_NE(RowsOf(plan, 0), RowsOf(plan, 1));
  EXPECT_NE(RowsOf(plan, 0), RowsOf(BatchPlan(1000, 1000, true, 2), 0));
  EXPECT_EQ(RowsOf(plan, 5), RowsOf(BatchPlan(1000, 1000, true, 1), 5));
}

TEST(BatchPlan, OrderDoesNotDependOnTheBatchSize) {
  const BatchPlan whole(10, 10, true, 3);
  const BatchPlan halves(10, 5, true, 3);
  std::vector<int64_t> rows = RowsOf(halves, 2);
  for (int64_t row : RowsOf(halves, 3)) rows.push_back(row);
  EXPECT_EQ(rows, RowsOf(whole, 1));
}

}  // namespace
}  // namespace shardmax
