// What a step sends: four collectives, 2 B D floats and O(B N) besides (docs/architecture.md).
#include <gmock/gmock.h>

#include "tests/support/head_run.h"

namespace shardmax {
namespace {

constexpr int64_t kVerdictBytes = 256;  // A status and its message; twice a step. The second has requests, too.
constexpr int64_t kMarkBytes = 4;       // In each block of the scatter: whether an update failed.
constexpr int64_t kPartialBytes = 16;   // Maximum, sum and count of a row.

void ExpectTraffic(const HeadProblem& problem, int ranks, bool with_feature_gradients) {
  SCOPED_TRACE(testing::Message() << problem.Describe() << ", " << ranks << " ranks, feature gradients "
                                  << with_feature_gradients);
  const HeadOutcome outcome = RunHead(problem, {.ranks = ranks, .want_feature_gradients = with_feature_gradients});
  const int64_t block = (problem.rows + ranks - 1) / ranks;
  for (const CommStats& stats : outcome.stats) {
    EXPECT_EQ(stats.all_gather.calls, 2);
    EXPECT_EQ(stats.all_gather.bytes,
              block * (4 * problem.dim + 4) + kVerdictBytes + kPartialBytes * problem.rows + kVerdictBytes);
    EXPECT_EQ(stats.all_reduce.calls, 1);
    EXPECT_EQ(stats.all_reduce.bytes, 4 * problem.rows);
    EXPECT_EQ(stats.reduce_scatter.calls, with_feature_gradients ? 1 : 0);
    EXPECT_EQ(stats.reduce_scatter.bytes, with_feature_gradients ? ranks * (4 * block * problem.dim + kMarkBytes) : 0);
    EXPECT_EQ(stats.Total().calls, with_feature_gradients ? 4 : 3);
  }
}

TEST(Collectives, OfAStepAreFourAndAsLargeAsTheBatch) {
  for (const int ranks : {1, 2, 3, 8}) {
    for (const int64_t rows : {1, 24, 33}) {
      const HeadProblem problem = MakeHeadProblem(1, rows, 5, 19);
      ExpectTraffic(problem, ranks, true);
      ExpectTraffic(problem, ranks, false);
    }
  }
}

TEST(Collectives, DoNotGrowWithTheClasses) {
  const HeadOutcome few = RunHead(MakeHeadProblem(1, 24, 5, 8), {.ranks = 2});
  const HeadOutcome many = RunHead(MakeHeadProblem(1, 24, 5, 800), {.ranks = 2});
  EXPECT_EQ(few.stats[0].Total().bytes, many.stats[0].Total().bytes);
}

TEST(Collectives, CarryFeaturesAndGradientsOnce) {
  // Rows divide evenly: 2 B D floats of features and gradients together, and at most a few words a row besides.
  const HeadProblem problem = MakeHeadProblem(1, 256, 64, 19);
  for (const int ranks : {1, 2, 8}) {
    const HeadOutcome outcome = RunHead(problem, {.ranks = ranks});
    const int64_t payload = 2 * 4 * problem.rows * problem.dim;
    EXPECT_LE(outcome.stats[0].Total().bytes, payload + 24 * problem.rows + 2 * kVerdictBytes + ranks * kMarkBytes);
  }
}

}  // namespace
}  // namespace shardmax
