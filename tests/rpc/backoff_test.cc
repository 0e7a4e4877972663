#include "rpc/backoff.h"

#include <gtest/gtest.h>

#include <chrono>
#include <set>

namespace shardmax {
namespace {

using std::chrono::milliseconds;

TEST(Backoff, WaitsDoubleUpToTheLongest) {
  Backoff backoff(milliseconds(200), milliseconds(5000), 1);
  for (const int most : {200, 400, 800, 1600, 3200, 5000, 5000, 5000}) {
    const milliseconds wait = backoff.Next();
    EXPECT_GE(wait, milliseconds(most / 2)) << most;
    EXPECT_LE(wait, milliseconds(most)) << most;
  }
}

TEST(Backoff, StartsAnewAfterSuccess) {
  Backoff backoff(milliseconds(200), milliseconds(5000), 1);
  for (int i = 0; i < 10; ++i) backoff.Next();
  backoff.Reset();
  EXPECT_LE(backoff.Next(), milliseconds(200));
}

TEST(Backoff, PoolsDoNotKnockTogether) {
  std::set<milliseconds> waits;
  for (int seed = 0; seed < 20; ++seed) waits.insert(Backoff(milliseconds(1000), milliseconds(5000), seed).Next());
  EXPECT_GT(waits.size(), 10U);
}

}  // namespace
}  // namespace shardmax
