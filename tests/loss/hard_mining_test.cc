#include "worker/loss/hard_mining.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

namespace shardmax {
namespace {

std::vector<bool> HardestRows(const std::vector<double>& losses, const std::vector<bool>& counted, double keep) {
  // As of another batch.
  std::vector<int64_t> rows = {3, 1};
  std::vector<bool> kept(7, true);
  SetHardestRows(losses, counted, keep, rows, kept);
  return kept;
}

using testing::ElementsAre;

int64_t KeptOf(int64_t rows, double keep) {
  const std::vector<double> losses(rows, 1.0);
  const std::vector<bool> kept = HardestRows(losses, std::vector<bool>(rows, true), keep);
  return std::count(kept.begin(), kept.end(), true);
}

TEST(HardestRows, KeepsTheLargestLosses) {
  const std::vector<double> losses = {0.5, 3, 1, 2};
  EXPECT_THAT(HardestRows(losses, {true, true, true, true}, 0.5), ElementsAre(false, true, false, true));
}

TEST(HardestRows, GivesTiesToTheLowerRow) {
  const std::vector<double> losses = {1, 2, 1, 1};
  EXPECT_THAT(HardestRows(losses, {true, true, true, true}, 0.5), ElementsAre(true, true, false, false));
}

TEST(HardestRows, CountsOnlyRowsThatAreNotIgnored) {
  const std::vector<double> losses = {9, 1, 2, 9};
  EXPECT_THAT(HardestRows(losses, {false, true, true, false}, 0.5), ElementsAre(false, false, true, false));
  EXPECT_THAT(HardestRows(losses, {false, true, true, false}, 1), ElementsAre(false, true, true, false));
  EXPECT_THAT(HardestRows(losses, {false, false, false, false}, 0.5), ElementsAre(false, false, false, false));
}

TEST(HardestRows, RoundsTheNumberOfRowsUp) {
  EXPECT_EQ(KeptOf(10, 0.9), 9);
  EXPECT_EQ(KeptOf(11, 0.9), 10);
  EXPECT_EQ(KeptOf(1, 0.9), 1);
  EXPECT_EQ(KeptOf(3, 0.001), 1);
  EXPECT_EQ(KeptOf(0, 0.9), 0);
}

TEST(HardestRows, CountsInPlainDoubleArithmetic) {
  EXPECT_EQ(KeptOf(100, 0.55), 56);  // 0.55 * 100 is 55.00000000000001.
  for (int64_t rows = 1; rows <= 1000; ++rows) {
    for (const double keep : {0.1, 0.3, 0.55, 0.7, 0.9}) {
      ASSERT_EQ(KeptOf(rows, keep), static_cast<int64_t>(std::ceil(keep * static_cast<double>(rows))))
          << keep << " of " << rows;
    }
  }
}

}  // namespace
}  // namespace shardmax
