// What --dry_run says of sampling, against the counters of the code.
#include "worker/sampling_cost.h"

#include <gmock/gmock.h>

#include "tests/support/head_run.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"
#include "worker/head/neighbour_scan.h"

namespace shardmax {
namespace {

using testing::HasSubstr;

TrainingPlan NearestPlanOf(int64_t neighbours) {
  TrainingPlan plan;
  plan.sample_rate = 0.1;
  plan.nearest = {.neighbours = neighbours, .rebuild_every_steps = 2000};
  return plan;
}

TEST(SamplingCost, HasTheBytesThatABuildSends) {
  const HeadProblem problem = MakeHeadProblem(1, 1, 6, 1001);
  const SamplingCost cost = CostOfSampling(NearestPlanOf(9), 1001, 6, 8, 3);
  EXPECT_EQ(cost.graph_bytes, 334 * 9 * 4);
  SpawnRanks(3, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, comm.rank(), 3, {}));
    SHARDMAX_ASSIGN_OR_RETURN(NeighbourGraph graph, NeighbourGraph::Allocate(engine->options().shard, 1001, 9));
    for (int agreement = 0; agreement < 2; ++agreement) SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm, absl::OkStatus()));
    const int64_t agreements = comm.stats().Total().bytes;
    SHARDMAX_RETURN_IF_ERROR(BuildNeighbourGraph(comm, *engine, graph));
    EXPECT_EQ(comm.stats().Total().bytes - agreements, cost.build_bytes + agreements);
    return absl::OkStatus();
  });
}

TEST(SamplingCost, IsSaidWhereClassesAreSampled) {
  TrainingPlan plan = NearestPlanOf(64);
  plan.recall_every_steps = 100;
  const std::string text = DescribeSampling(plan, 1'000'000, 512, 256, 2);
  EXPECT_THAT(text, HasSubstr("over about 50115 classes of a rank"));
  EXPECT_THAT(text, HasSubstr("128 MB a rank; each of its builds, every 2000 steps, multiplies with 3.840e+14"));
  EXPECT_THAT(text, HasSubstr("a step sends 32768 bytes for it"));
  EXPECT_THAT(text, HasSubstr("every 100 steps 1.311e+11 operations of a rank"));
  plan.sample_rate = 1;
  EXPECT_EQ(DescribeSampling(plan, 1'000'000, 512, 256, 2), "");
}

}  // namespace
}  // namespace shardmax
