// Ranks may bring any number of rows, also none: the step is that of the same rows on one rank.
#include <gmock/gmock.h>

#include <mutex>
#include <numeric>

#include "tests/support/compare.h"
#include "tests/support/head_run.h"
#include "tests/support/loss_cases.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using testing::HasSubstr;

constexpr EngineKind kEngines[] = {EngineKind::kReference, EngineKind::kCpu};

// Two steps, so that the second sees the weights of the first.
void ExpectLikeOneRank(const HeadProblem& problem, const std::vector<int64_t>& rank_rows, HeadRunOptions options) {
  const HeadOutcome alone = RunHead({problem, problem}, options);
  std::vector<float> gradients(problem.features.size());
  std::mutex mutex;
  const int ranks = static_cast<int>(rank_rows.size());
  SpawnRanks(ranks, [&](Communicator& comm) -> absl::Status {
    const int rank = comm.rank();
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, rank, ranks, options));
    ShardedHead head(comm, *engine, problem.classes);
    const StepInput input = UnevenInput(problem, rank, rank_rows, options);
    for (int step = 0; step < 2; ++step) {
      SHARDMAX_ASSIGN_OR_RETURN(const StepResult result, head.Step(input));
      EXPECT_NEAR(result.loss, alone.steps[step].loss, 1e-5 * alone.steps[step].loss) << "step " << step;
      EXPECT_EQ(result.counted_rows, alone.steps[step].counted_rows);
      EXPECT_EQ(result.feature_gradients.rows, rank_rows[rank]);
      if (step == 0) continue;
      std::lock_guard<std::mutex> lock(mutex);
      const auto first = std::accumulate(rank_rows.begin(), rank_rows.begin() + rank, int64_t{0});
      const auto mine = result.feature_gradients.flat();
      std::copy(mine.begin(), mine.end(), gradients.begin() + first * problem.dim);
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(MatricesAgree(gradients, alone.feature_gradients, problem.dim, {1e-5}));
}

TEST(UnevenRows, TrainLikeOneRank) {
  for (const EngineKind engine : kEngines) {
    for (const LossCase& c : AllLossCases()) {
      HeadProblem problem = MakeHeadProblem(60, 23, 13, 103);
      problem.labels[4] = -1;
      const HeadRunOptions options = {.engine = engine, .loss = c.params};
      AvoidThresholds(c.params, 1e-5, problem);
      for (const auto& rank_rows :
           std::vector<std::vector<int64_t>>{{23}, {20, 3}, {0, 23}, {23, 0}, {1, 15, 7}, {0, 0, 23}, {11, 0, 12}}) {
        SCOPED_TRACE(testing::Message() << c.name << ", rows " << testing::PrintToString(rank_rows));
        ExpectLikeOneRank(problem, rank_rows, options);
      }
    }
  }
}

// The status of a step with these rows, which every rank returns before it sends anything.
std::string Refusal(int64_t global_rows, const std::vector<int64_t>& rank_rows) {
  const HeadProblem problem = MakeHeadProblem(61, 8, 5, 17);
  std::string message;
  SpawnRanks(2, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, comm.rank(), 2, {}));
    ShardedHead head(comm, *engine, problem.classes);
    StepInput input = InputOfRank(problem, comm.rank(), 2, {});
    input.global_rows = global_rows;
    input.rank_rows = rank_rows;
    const absl::Status status = head.Step(input).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_EQ(comm.stats().Total().calls, 0);
    if (comm.rank() == 0) message = Message(status);
    return absl::OkStatus();
  });
  return message;
}

TEST(UnevenRows, RefuseNumbersThatDoNotFit) {
  const std::vector<int64_t> none = {0, 0};
  EXPECT_THAT(Refusal(0, none), HasSubstr("the batch has 0 rows"));
  EXPECT_THAT(Refusal(8, std::vector<int64_t>{4, 5}), HasSubstr("bring 9 rows together, but the batch has 8"));
  EXPECT_THAT(Refusal(8, std::vector<int64_t>{9, -1}), HasSubstr("rank 1 brings -1 rows"));
  EXPECT_THAT(Refusal(8, std::vector<int64_t>{8}), HasSubstr("rows of 1 ranks are given, but there are 2"));
}

TEST(UnevenRows, NameTheRankWhoseRowsAreNotWhatItSaid) {
  const HeadProblem problem = MakeHeadProblem(62, 8, 5, 17);
  SpawnRanks(2, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, comm.rank(), 2, {}));
    ShardedHead head(comm, *engine, problem.classes);
    const std::vector<int64_t> rank_rows = {6, 2};
    StepInput input = UnevenInput(problem, comm.rank(), rank_rows, {});
    if (comm.rank() == 1) input.labels = input.labels.first(1);
    const absl::Status status = head.Step(input).status();
    EXPECT_THAT(Message(status), HasSubstr("rank 1: this rank brings 2 rows and 1 labels"));
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace shardmax
