#include "server/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/job_records.h"

namespace shardmax {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> Pairs(const std::vector<Placement>& placements) {
  std::vector<std::string> pairs;
  for (const Placement& placement : placements) pairs.push_back(placement.job + "@" + placement.pool);
  return pairs;
}

TEST(JobQueueTest, PriorityGoesFirstThenSubmission) {
  JobQueue queue;
  queue.Add({.id = "late", .sequence = 3});
  queue.Add({.id = "early", .sequence = 1});
  queue.Add({.id = "urgent", .sequence = 4, .priority = 5});
  queue.Add({.id = "idle", .sequence = 2, .priority = -5});
  EXPECT_THAT(Pairs(queue.Place({{"p", 1}})), ElementsAre("urgent@p"));
  EXPECT_THAT(Pairs(queue.Place({{"a", 1}, {"b", 1}, {"c", 1}})), ElementsAre("urgent@a", "early@b", "late@c"));
}

TEST(JobQueueTest, AJobThatFitsNowhereHoldsNoneUp) {
  JobQueue queue;
  queue.Add({.id = "big", .sequence = 1, .min_ranks = 8});
  queue.Add({.id = "named", .sequence = 2, .pool = "q"});
  queue.Add({.id = "small", .sequence = 3, .max_ranks = 2});
  queue.Add({.id = "any", .sequence = 4});
  EXPECT_THAT(Pairs(queue.Place({{"p", 4}})), ElementsAre("any@p"));
  EXPECT_THAT(Pairs(queue.Place({{"p", 2}})), ElementsAre("small@p"));
  EXPECT_THAT(Pairs(queue.Place({{"q", 2}, {"p", 4}})), ElementsAre("named@q", "any@p"));
  EXPECT_THAT(queue.Place({}), IsEmpty());
}

TEST(JobQueueTest, AJobPrefersTheNumberOfRanksThatItHadThenTheLargestPool) {
  JobQueue queue;
  queue.Add({.id = "again", .sequence = 1, .last_ranks = 2});
  queue.Add({.id = "fresh", .sequence = 2});
  EXPECT_THAT(Pairs(queue.Place({{"p1", 1}, {"p2", 2}, {"p8", 8}})), ElementsAre("again@p2", "fresh@p8"));
}

TEST(JobQueueTest, ARemovedJobIsNotPlaced) {
  JobQueue queue;
  queue.Add({.id = "a", .sequence = 1});
  queue.Add({.id = "b", .sequence = 2});
  queue.Remove("a");
  queue.Remove("a");
  EXPECT_EQ(queue.size(), 1u);
  EXPECT_THAT(Pairs(queue.Place({{"p", 1}})), ElementsAre("b@p"));
}

TEST(JobQueueTest, ATrainingJobTakesNoMoreRanksThanClassesAnEvaluationAnyNumber) {
  EXPECT_EQ(ToQueued(NewJob("a")).max_ranks, 50);
  EXPECT_EQ(ToQueued(NewJob("a", "max_ranks: 8")).max_ranks, 8);
  EXPECT_EQ(ToQueued(NewJob("a", "max_ranks: 80")).max_ranks, 50);
  EXPECT_GT(ToQueued(NewJob("a", "evaluate {}")).max_ranks, 1'000'000);
  EXPECT_EQ(ToQueued(NewJob("a", "evaluate {} max_ranks: 8")).max_ranks, 8);
}

}  // namespace
}  // namespace shardmax
