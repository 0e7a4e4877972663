#include "worker/data/permutation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

namespace shardmax {
namespace {

using ::testing::ElementsAre;

std::vector<int64_t> Order(int64_t n, uint32_t seed, int64_t epoch) {
  const Permutation permutation(n, seed, epoch);
  std::vector<int64_t> order(n);
  for (int64_t i = 0; i < n; ++i) order[i] = permutation(i);
  return order;
}

// How many standard deviations chi-square lies above its mean.
double Excess(const std::vector<int>& counts, double expected) {
  double chi_square = 0;
  for (int count : counts) chi_square += (count - expected) * (count - expected) / expected;
  const double freedom = static_cast<double>(counts.size()) - 1;
  return (chi_square - freedom) / std::sqrt(2 * freedom);
}

TEST(Permutation, VisitsEveryIndexOnce) {
  for (int64_t n : {1, 2, 3, 4, 5, 63, 64, 65, 1000, 4096, 65536, 65537}) {
    for (uint32_t seed : {0u, 1u, 0xffffffffu}) {
      std::vector<int64_t> order = Order(n, seed, 3);
      std::sort(order.begin(), order.end());
      std::vector<int64_t> all(n);
      std::iota(all.begin(), all.end(), 0);
      EXPECT_EQ(order, all) << "n " << n << " seed " << seed;
    }
  }
}

TEST(Permutation, StaysInRangeForHugeSizes) {
  for (int64_t n : {(int64_t{1} << 40) + 1, INT64_MAX}) {
    const Permutation permutation(n, 1, 0);
    for (int64_t i : {int64_t{0}, int64_t{1}, n / 2, n - 1}) {
      EXPECT_GE(permutation(i), 0) << "n " << n << " i " << i;
      EXPECT_LT(permutation(i), n) << "n " << n << " i " << i;
    }
  }
}

// A change here breaks the promise that a run repeats: old checkpoints would resume with another order.
TEST(Permutation, OrderNeverChanges) {
  EXPECT_THAT(Order(10, 1, 0), ElementsAre(5, 6, 3, 1, 7, 2, 0, 4, 8, 9));
  EXPECT_THAT(Order(10, 1, 1), ElementsAre(2, 8, 1, 7, 5, 4, 0, 3, 9, 6));
  const Permutation large(5'000'000'000, 1, 7);
  EXPECT_THAT(std::vector<int64_t>({large(0), large(1), large(4'999'999'999)}),
              ElementsAre(3356317600, 4963412804, 4769787042));
}

TEST(Permutation, DiffersBetweenEpochsAndSeeds) {
  constexpr int64_t kN = 1000;
  const std::vector<int64_t> order = Order(kN, 1, 0);
  for (const std::vector<int64_t>& other : {Order(kN, 1, 1), Order(kN, 2, 0), Order(kN, 0, 1)}) {
    int equal = 0;
    for (int64_t i = 0; i < kN; ++i) equal += order[i] == other[i] ? 1 : 0;
    EXPECT_LT(equal, 10) << "two random orders agree in 1 place on average";
  }
}

TEST(Permutation, ReachesEveryOrderOfFourEquallyOften) {
  constexpr int kEpochs = 24'000;
  std::map<std::vector<int64_t>, int> counts;
  for (int epoch = 0; epoch < kEpochs; ++epoch) ++counts[Order(4, 1, epoch)];
  ASSERT_EQ(counts.size(), 24u);
  std::vector<int> list;
  for (const auto& [order, count] : counts) list.push_back(count);
  EXPECT_LT(std::abs(Excess(list, kEpochs / 24.0)), 5);
}

TEST(Permutation, SendsEveryIndexEverywhereEquallyOften) {
  for (int64_t n : {3, 17, 100}) {
    constexpr int kEpochs = 5000;
    std::vector<int> counts(n * n);
    for (int epoch = 0; epoch < kEpochs; ++epoch) {
      const std::vector<int64_t> order = Order(n, 1, epoch);
      for (int64_t i = 0; i < n; ++i) ++counts[i * n + order[i]];
    }
    EXPECT_LT(std::abs(Excess(counts, kEpochs / static_cast<double>(n))), 5) << "n " << n;
  }
}

// Neighbours of the file (often rows of one class) must not stay near each other.
TEST(Permutation, SpreadsNeighbours) {
  constexpr int64_t kN = 20'000;
  constexpr int kBuckets = 50;
  const std::vector<int64_t> order = Order(kN, 1, 0);
  std::vector<int> counts(kBuckets);
  for (int64_t i = 0; i + 1 < kN; ++i) ++counts[((order[i + 1] - order[i] + kN) % kN) * kBuckets / kN];
  EXPECT_LT(std::abs(Excess(counts, static_cast<double>(kN) / kBuckets)), 5);
}

}  // namespace
}  // namespace shardmax
