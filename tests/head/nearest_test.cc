#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "tests/support/head_run.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

struct NearestCase {
  EngineKind engine;
  int ranks;
};

class CountNearest : public testing::TestWithParam<NearestCase> {
 protected:
  static ShardedHead::Accuracy Count(const HeadProblem& problem) {
    const int ranks = GetParam().ranks;
    const HeadRunOptions options = {.engine = GetParam().engine, .threads = 2};
    std::vector<ShardedHead::Accuracy> counts(ranks);
    SpawnRanks(ranks, [&](Communicator& comm) -> absl::Status {
      SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, comm.rank(), ranks, options));
      ShardedHead head(comm, *engine, problem.classes);
      SHARDMAX_ASSIGN_OR_RETURN(counts[comm.rank()],
                                head.CountNearest(InputOfRank(problem, comm.rank(), ranks, options)));
      return absl::OkStatus();
    });
    for (const ShardedHead::Accuracy& count : counts) {
      EXPECT_EQ(count.correct, counts[0].correct);
      EXPECT_EQ(count.counted, counts[0].counted);
    }
    return counts[0];
  }
};

int64_t BruteForceCorrect(const HeadProblem& problem) {
  int64_t correct = 0;
  for (int64_t b = 0; b < problem.rows; ++b) {
    if (problem.labels[b] < 0) continue;
    int64_t best = -1;
    double best_along = 0;
    for (int64_t k = 0; k < problem.classes; ++k) {
      double dot = 0, square = 0;
      for (int64_t i = 0; i < problem.dim; ++i) {
        const double w = problem.weights[k * problem.dim + i];
        dot += w * static_cast<double>(problem.features[b * problem.dim + i]);
        square += w * w;
      }
      const double along = dot / std::sqrt(square);  // The cosine times |x|.
      if (best < 0 || along > best_along) {
        best_along = along;
        best = k;
      }
    }
    correct += best == problem.labels[b] ? 1 : 0;
  }
  return correct;
}

TEST_P(CountNearest, AgreesWithBruteForce) {
  for (const int64_t classes : {3, 97, 1500}) {
    HeadProblem problem = MakeHeadProblem(1, 101, 12, classes);
    problem.labels[7] = -1;
    const ShardedHead::Accuracy accuracy = Count(problem);
    EXPECT_EQ(accuracy.counted, 100);
    EXPECT_EQ(accuracy.correct, BruteForceCorrect(problem)) << classes;
    EXPECT_GT(accuracy.correct, 5);
    EXPECT_LT(accuracy.correct, 95);
  }
}

TEST_P(CountNearest, GivesTiesToTheLowerClass) {
  // Classes 0, 2 and 4 are one axis, 1, 3 and 5 the other: ties within a shard and across shards, without rounding.
  HeadProblem problem = {.rows = 6, .dim = 2, .classes = 6, .labels = {0, 0, 0, 1, 1, 1}};
  for (int64_t k = 0; k < 6; ++k) problem.weights.insert(problem.weights.end(), {k % 2 == 0 ? 1.F : 0.F, k % 2 * 2.F});
  problem.features = {1, 0, 1, 0, 1, 0, 0, 4, 0, 4, 0, 4};
  EXPECT_EQ(Count(problem).correct, 6);
}

TEST_P(CountNearest, OfIgnoredRowsIsNothing) {
  HeadProblem problem = MakeHeadProblem(1, 5, 3, 4);
  problem.labels.assign(5, -1);
  EXPECT_EQ(Count(problem).counted, 0);
  EXPECT_EQ(Count(problem).correct, 0);
}

TEST_P(CountNearest, RefusesWeightsThatAreNotFinite) {
  HeadProblem problem = MakeHeadProblem(1, 5, 3, 9);
  problem.weights[5 * 3 + 1] = std::numeric_limits<float>::quiet_NaN();
  const auto [engine_kind, ranks] = GetParam();
  const HeadRunOptions options = {.engine = engine_kind};
  SpawnRanks(ranks, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, comm.rank(), comm.size(), options));
    ShardedHead head(comm, *engine, problem.classes);
    const auto accuracy = head.CountNearest(InputOfRank(problem, comm.rank(), comm.size(), options));
    EXPECT_EQ(accuracy.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(Message(accuracy.status()), testing::HasSubstr("the weights of class 5 are not finite"));
    return absl::OkStatus();
  });
}

INSTANTIATE_TEST_SUITE_P(EnginesAndRanks, CountNearest,
                         testing::Values(NearestCase{EngineKind::kReference, 1}, NearestCase{EngineKind::kReference, 2},
                                         NearestCase{EngineKind::kReference, 3}, NearestCase{EngineKind::kCpu, 1},
                                         NearestCase{EngineKind::kCpu, 2}, NearestCase{EngineKind::kCpu, 3}),
                         [](const auto& info) {
                           return std::string(info.param.engine == EngineKind::kCpu ? "Cpu" : "Reference") +
                                  std::to_string(info.param.ranks);
                         });

}  // namespace
}  // namespace shardmax
