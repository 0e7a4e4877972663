// Collectives beside the engine's work: the same bits, and errors where they belong.
#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <limits>
#include <thread>

#include "tests/head/failing_engine.h"
#include "tests/support/fault_comm.h"
#include "tests/support/head_run.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

constexpr int kRanks = 3;

std::vector<HeadProblem> Batches() {
  // Rows that do not divide by the ranks, and fewer rows than ranks.
  return {MakeHeadProblem(1, 10, 4, 31), MakeHeadProblem(2, 7, 4, 31), MakeHeadProblem(3, 2, 4, 31),
          MakeHeadProblem(4, 12, 4, 31)};
}

void ExpectSameBits(HeadRunOptions options) {
  const std::vector<HeadProblem> batches = Batches();
  const HeadOutcome one_after_another = RunHead(batches, options);
  options.gather_ahead = true;
  const HeadOutcome beside = RunHead(batches, options);
  ASSERT_EQ(beside.steps.size(), batches.size());
  for (size_t i = 0; i < batches.size(); ++i) {
    EXPECT_EQ(beside.steps[i].loss, one_after_another.steps[i].loss) << batches[i].Describe() << ", step " << i;
  }
  EXPECT_EQ(beside.tensors, one_after_another.tensors);
  EXPECT_EQ(beside.feature_gradients, one_after_another.feature_gradients);
  for (int rank = 0; rank < options.ranks; ++rank) {
    EXPECT_EQ(beside.stats[rank].Total().calls, one_after_another.stats[rank].Total().calls);
    EXPECT_EQ(beside.stats[rank].Total().bytes, one_after_another.stats[rank].Total().bytes);
  }
}

TEST(Overlap, ChangesNoBit) {
  for (const EngineKind engine : {EngineKind::kReference, EngineKind::kCpu}) {
    for (const int ranks : {1, 2, 3}) {
      for (const bool with_feature_gradients : {false, true}) {
        SCOPED_TRACE(testing::Message() << ranks << " ranks, feature gradients " << with_feature_gradients);
        ExpectSameBits({.engine = engine,
                        .ranks = ranks,
                        .threads = 2,
                        .tile_classes = 4,
                        .want_feature_gradients = with_feature_gradients});
      }
    }
  }
}

TEST(Overlap, ChangesNoBitOfASampledHead) {
  for (const int64_t neighbours : {0, 3}) {
    for (const bool measure_recall : {false, true}) {
      SCOPED_TRACE(testing::Message() << neighbours << " neighbours, recall " << measure_recall);
      ExpectSameBits({.engine = EngineKind::kCpu,
                      .ranks = kRanks,
                      .tile_classes = 4,
                      .sample_rate = 0.5,
                      .neighbours = neighbours,
                      .measure_recall = measure_recall,
                      .want_feature_gradients = false});
    }
  }
}

bool ComesTrue(const std::atomic<bool>& flag) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!flag && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  return flag;
}

// Runs `program` on every rank with a head whose engine can be told to fail.
void RunRanks(int ranks, const HeadProblem& problem,
              const std::function<absl::Status(Communicator&, FailingEngine&, ShardedHead&, StepInput)>& program) {
  SpawnRanks(ranks, [&](Communicator& comm) -> absl::Status {
    const HeadRunOptions options = {.engine = EngineKind::kCpu, .want_feature_gradients = false};
    SHARDMAX_ASSIGN_OR_RETURN(const auto inner, EngineOfRank(problem, comm.rank(), ranks, options));
    FailingEngine engine(*inner);
    ShardedHead head(comm, engine, problem.classes);
    return program(comm, engine, head, InputOfRank(problem, comm.rank(), ranks, options));
  });
}

TEST(Overlap, ReadsTheNextRowsWhileWeightsAreUpdated) {
  RunRanks(kRanks, Batches()[0], [](Communicator&, FailingEngine& engine, ShardedHead& head, const StepInput& input) {
    std::atomic<bool> read = false;
    engine.before_backward = [&] { EXPECT_TRUE(ComesTrue(read)); };
    const auto next = [&] {
      read = true;
      return input;
    };
    EXPECT_FALSE(head.has_rows());
    SHARDMAX_RETURN_IF_ERROR(head.Step(input, next).status());
    EXPECT_TRUE(head.has_rows());
    StepInput without_rows = input;
    without_rows.features = {};
    without_rows.labels = {};
    without_rows.global_rows = 0;
    engine.before_backward = nullptr;
    EXPECT_EQ(head.Step(without_rows).status(), absl::OkStatus());
    EXPECT_FALSE(head.has_rows());
    return absl::OkStatus();
  });
}

TEST(Overlap, BeginsToScoreWhileLabelCosinesAreSummed) {
  // Rank 1 comes to the sum only once rank 0 has begun to score.
  std::atomic<bool> scoring = false;
  RunRanks(2, Batches()[0], [&](Communicator& comm, FailingEngine& engine, ShardedHead& head, const StepInput& input) {
    if (comm.rank() == 0) engine.before_prepare = [&] { scoring = true; };
    if (comm.rank() == 1) engine.before_label_cosines = [&] { EXPECT_TRUE(ComesTrue(scoring)); };
    return head.Step(input).status();
  });
  EXPECT_TRUE(scoring);
}

TEST(Overlap, SaysWhatIsWrongWithTheNextRowsInTheirStep) {
  RunRanks(kRanks, Batches()[0], [](Communicator& comm, FailingEngine& engine, ShardedHead& head, StepInput input) {
    const std::vector<int32_t> wrong(input.labels.size(), 99);
    const auto next = [&] {
      StepInput bad = input;
      if (comm.rank() == 1) bad.labels = wrong;
      return bad;
    };
    SHARDMAX_RETURN_IF_ERROR(head.Step(input, next).status());
    const Range shard = engine.options().shard;
    std::vector<float> before(shard.count * engine.options().dim);
    std::vector<float> after = before;
    SHARDMAX_RETURN_IF_ERROR(engine.ReadRows("weight", shard, {before.data(), shard.count, engine.options().dim}));
    EXPECT_EQ(head.Step(input).status(),
              absl::InvalidArgumentError("rank 1: labels row 0 is 99: allowed is -1 (ignored) or a class in [0, 31)"));
    SHARDMAX_RETURN_IF_ERROR(engine.ReadRows("weight", shard, {after.data(), shard.count, engine.options().dim}));
    EXPECT_EQ(before, after);
    return head.Step(input).status();
  });
}

TEST(Overlap, KeepsAnErrorThatCameAfterTheNextRows) {
  RunRanks(kRanks, Batches()[0], [](Communicator& comm, FailingEngine&, ShardedHead& head, StepInput input) {
    const auto next = [&] { return input; };
    SHARDMAX_RETURN_IF_ERROR(head.Step(input, next).status());
    StepInput full = input;
    if (comm.rank() == 2) full.status = absl::ResourceExhaustedError("the disk is full");
    EXPECT_EQ(head.Step(full).status(), absl::ResourceExhaustedError("rank 2: the disk is full"));
    return head.Step(input).status();
  });
}

TEST(Overlap, TellsOfAnUpdateThatFailedBeforeOfRowsThatAreWrong) {
  RunRanks(kRanks, Batches()[0], [](Communicator& comm, FailingEngine& engine, ShardedHead& head, StepInput input) {
    if (comm.rank() == 1) engine.backward_status = absl::InternalError("burnt");
    const std::vector<int32_t> wrong(input.labels.size(), 99);
    const auto next = [&] {
      StepInput bad = input;
      if (comm.rank() == 2) bad.labels = wrong;
      return bad;
    };
    SHARDMAX_RETURN_IF_ERROR(head.Step(input, next).status());
    EXPECT_EQ(head.Step(input).status(),
              absl::InternalError("rank 1: in the backward phase of the step before: burnt"));
    return absl::OkStatus();
  });
}

TEST(Overlap, TellsOfARankThatWasLostWhileTheNextRowsWereGathered) {
  const HeadProblem problem = Batches()[0];
  // The rows of the first step, its partials, the rows of the second.
  const Fault fault = {
      .rank = 1, .operation = &CommStats::all_gather, .call = 3, .status = absl::UnavailableError("cable cut")};
  SpawnRanks(kRanks,
             [&](ThreadCommunicator& inner) -> absl::Status {
               FaultComm comm(inner, fault);
               const HeadRunOptions options = {.engine = EngineKind::kCpu, .want_feature_gradients = false};
               SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, inner.rank(), kRanks, options));
               ShardedHead head(comm, *engine, problem.classes);
               const StepInput input = InputOfRank(problem, inner.rank(), kRanks, options);
               EXPECT_EQ(head.Step(input, [&] { return input; }).status(), absl::OkStatus());
               const absl::Status second = head.Step(input).status();
               EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable) << second;
               EXPECT_THAT(Message(second), testing::HasSubstr(inner.rank() == 1 ? "cable cut" : "rank 1"));
               EXPECT_EQ(head.Step(input).status(), second) << "a broken communicator stays broken";
               return absl::OkStatus();
             },
             {.timeout = std::chrono::seconds(60)});
}

TEST(Overlap, SaysWhichUpdateFailedThoughTheNextRowsAreThere) {
  RunRanks(kRanks, Batches()[0], [](Communicator& comm, FailingEngine& engine, ShardedHead& head, StepInput input) {
    if (comm.rank() == 1) engine.backward_status = absl::InternalError("burnt");
    const auto next = [&] { return input; };
    SHARDMAX_RETURN_IF_ERROR(head.Step(input, next).status());
    // Weights that cannot be used any more do not hide why.
    const Range shard = engine.options().shard;
    const std::vector<float> nan(shard.count * engine.options().dim, std::numeric_limits<float>::quiet_NaN());
    if (comm.rank() == 2) {
      SHARDMAX_RETURN_IF_ERROR(engine.WriteRows("weight", shard, {nan.data(), shard.count, engine.options().dim}));
    }
    EXPECT_EQ(head.Step(input).status(),
              absl::InternalError("rank 1: in the backward phase of the step before: burnt"));
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace shardmax
