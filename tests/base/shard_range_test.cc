#include "worker/base/shard_range.h"

#include <gmock/gmock.h>

#include "worker/base/status.h"

namespace shardmax {
namespace {

TEST(BalancedPart, TilesTheTotalWithSizesThatDifferByAtMostOne) {
  for (int64_t total : {0, 1, 2, 7, 100, 101}) {
    for (int parts : {1, 2, 3, 8}) {
      int64_t next = 0;
      for (int part = 0; part < parts; ++part) {
        const Range range = BalancedPart(total, part, parts);
        EXPECT_EQ(range.first, next) << total << " in " << parts;
        EXPECT_GE(range.count, total / parts);
        EXPECT_LE(range.count, total / parts + 1);
        next = range.end();
      }
      EXPECT_EQ(next, total);
    }
  }
}

TEST(ShardOfRank, RefusesAWorldThatDoesNotFitTheClasses) {
  EXPECT_THAT(Message(ShardOfRank(5, 0, 0).status()), testing::HasSubstr("world size is 0"));
  EXPECT_THAT(Message(ShardOfRank(5, 0, 6).status()), testing::HasSubstr("larger than num_classes 5"));
  EXPECT_THAT(Message(ShardOfRank(5, 2, 2).status()), testing::HasSubstr("must be in [0, 2)"));
  EXPECT_EQ(ShardOfRank(5, 4, 5)->count, 1);
}

}  // namespace
}  // namespace shardmax
