// Comparing matrices of numbers, with the worst element in the failure.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <ranges>

namespace shardmax {

struct Tolerance {
  double relative = 1e-5;  // Of the largest absolute value of `expected`.
  // What counts as the largest absolute value if all are smaller: the size of the terms that cancelled.
  double floor = 0;
};

// Success when max |actual - expected| <= relative * max |expected|, both of the same size and all of them finite.
// The failure names the worst element as [row, column], of rows of `cols` elements.
template <std::ranges::random_access_range Actual, std::ranges::random_access_range Expected>
testing::AssertionResult MatricesAgree(const Actual& actual, const Expected& expected, int64_t cols,
                                       const Tolerance& tolerance) {
  const auto size = static_cast<int64_t>(std::ranges::size(expected));
  if (static_cast<int64_t>(std::ranges::size(actual)) != size) {
    return testing::AssertionFailure() << std::ranges::size(actual) << " elements, expected " << size;
  }
  double largest = tolerance.floor;
  double worst = -1;
  int64_t where = 0;
  for (int64_t i = 0; i < size; ++i) {
    const auto want = static_cast<double>(expected[i]);
    double difference = std::abs(static_cast<double>(actual[i]) - want);
    if (!std::isfinite(difference)) difference = HUGE_VAL;
    largest = std::max(largest, std::abs(want));
    if (difference > worst) {
      worst = difference;
      where = i;
    }
  }
  const double bound = tolerance.relative * largest;
  if (worst <= bound) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "worst element [" << where / cols << ", " << where % cols
                                     << "]: " << actual[where] << ", expected " << expected[where] << ", off by "
                                     << worst << " = " << worst / largest << " of the largest value " << largest
                                     << ", allowed " << tolerance.relative;
}

}  // namespace shardmax
