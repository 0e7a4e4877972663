// Ranks that come late, or not at all, in the middle of a step.
#include <gmock/gmock.h>

#include <chrono>

#include "tests/support/fault_comm.h"
#include "tests/support/head_run.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kRanks = 3;

// A collective of a step, in order.
struct Phase {
  std::string name;
  CommStats::Counter CommStats::*operation;
  int64_t call;
  bool weights_change_before;
};

class StepFaults : public testing::TestWithParam<Phase> {
 protected:
  struct RankEnd {
    absl::Status status;
    absl::Status next_status;
    milliseconds took{0};
    bool weights_changed = false;
  };

  // What a step, and one more after it, come to on each rank.
  static std::vector<RankEnd> RunStep(const Fault& fault, milliseconds timeout) {
    const HeadProblem problem = MakeHeadProblem(1, 10, 4, 9);
    std::vector<RankEnd> ends(kRanks);
    SpawnRanks(kRanks,
               [&](ThreadCommunicator& inner) -> absl::Status {
                 const int rank = inner.rank();
                 FaultComm comm(inner, fault);
                 SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, rank, kRanks, {}));
                 const Range shard = engine->options().shard;
                 std::vector<float> before(shard.count * 4), after(shard.count * 4);
                 SHARDMAX_RETURN_IF_ERROR(engine->ReadRows("weight", shard, {before.data(), shard.count, 4}));
                 ShardedHead head(comm, *engine, problem.classes);
                 const auto start = steady_clock::now();
                 ends[rank].status = head.Step(InputOfRank(problem, rank, kRanks, {})).status();
                 ends[rank].took = std::chrono::duration_cast<milliseconds>(steady_clock::now() - start);
                 SHARDMAX_RETURN_IF_ERROR(engine->ReadRows("weight", shard, {after.data(), shard.count, 4}));
                 ends[rank].weights_changed = before != after;
                 ends[rank].next_status = head.Step(InputOfRank(problem, rank, kRanks, {})).status();
                 return absl::OkStatus();
               },
               {.timeout = timeout});
    return ends;
  }
};

TEST_P(StepFaults, OfALostRankEndEveryRankAtOnce) {
  const Fault fault = {.rank = 1,
                       .operation = GetParam().operation,
                       .call = GetParam().call,
                       .status = absl::UnavailableError("cable cut")};
  const std::vector<RankEnd> ends = RunStep(fault, std::chrono::seconds(60));
  EXPECT_EQ(Message(ends[1].status), "cable cut");
  for (const int rank : {0, 2}) {
    EXPECT_EQ(ends[rank].status.code(), absl::StatusCode::kUnavailable) << ends[rank].status;
    EXPECT_THAT(Message(ends[rank].status), testing::HasSubstr("rank 1"));
    EXPECT_LT(ends[rank].took, std::chrono::seconds(30));
  }
  for (const RankEnd& end : ends) {
    EXPECT_EQ(end.weights_changed, GetParam().weights_change_before);
    EXPECT_EQ(end.next_status, end.status) << "a broken communicator stays broken";
  }
}

TEST_P(StepFaults, OfALateRankEndEveryRankWithinTheDeadline) {
  const Fault fault = {
      .rank = 1, .operation = GetParam().operation, .call = GetParam().call, .delay = milliseconds(600)};
  const std::vector<RankEnd> ends = RunStep(fault, milliseconds(200));
  for (const RankEnd& end : ends) {
    EXPECT_EQ(end.status.code(), absl::StatusCode::kDeadlineExceeded) << end.status;
    EXPECT_THAT(Message(end.status), testing::HasSubstr("rank 1"));
    EXPECT_EQ(end.weights_changed, GetParam().weights_change_before);
    EXPECT_FALSE(end.next_status.ok());
  }
  // The deadline of 200 ms was that of a single wait, on a machine that may be busy.
  for (const int rank : {0, 2}) EXPECT_LT(ends[rank].took, std::chrono::seconds(20));
}

INSTANTIATE_TEST_SUITE_P(Phases, StepFaults,
                         testing::Values(Phase{"Gather", &CommStats::all_gather, 1, false},
                                         Phase{"LabelCosine", &CommStats::all_reduce, 1, false},
                                         Phase{"Normaliser", &CommStats::all_gather, 2, false},
                                         Phase{"Scatter", &CommStats::reduce_scatter, 1, true}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace shardmax
