// An error of one rank is the error of all, and no weight has changed.
#include <gmock/gmock.h>

#include <functional>
#include <limits>
#include <mutex>

#include "tests/head/failing_engine.h"
#include "tests/support/head_run.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using testing::HasSubstr;

constexpr int kRanks = 3;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What rank 1 does wrong. Its rows may be changed at will: they are its own copy.
struct RankRows {
  StepInput input;
  std::vector<float> features;
  std::vector<int32_t> labels;
};
using Spoil = std::function<void(RankRows&)>;

std::vector<float> AllRows(const Engine& engine, const std::string& tensor) {
  const Range shard = engine.options().shard;
  std::vector<float> rows(shard.count * engine.options().dim);
  EXPECT_TRUE(engine.ReadRows(tensor, shard, {rows.data(), shard.count, engine.options().dim}).ok());
  return rows;
}

HeadProblem Problem() {
  return MakeHeadProblem(1, 10, 4, 9);  // Rank 1 has rows 4 to 6 and classes 3 to 5.
}

// One good step, one with `spoil` on rank 1, then again the first: the statuses of the second by rank. Weights and
// momentum must come out of the second as they went in, and the third must succeed.
std::vector<absl::Status> StatusesOfSpoiledStep(EngineKind kind, const Spoil& spoil) {
  const HeadProblem problem = Problem();
  std::vector<absl::Status> statuses(kRanks);
  SpawnRanks(kRanks, [&](Communicator& comm) -> absl::Status {
    const HeadRunOptions options = {.engine = kind};
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, comm.rank(), kRanks, options));
    ShardedHead head(comm, *engine, problem.classes);
    const StepInput good = InputOfRank(problem, comm.rank(), kRanks, options);
    SHARDMAX_RETURN_IF_ERROR(head.Step(good).status());

    RankRows rows = {.input = good,
                     .features = {good.features.flat().begin(), good.features.flat().end()},
                     .labels = {good.labels.begin(), good.labels.end()}};
    rows.input.features.data = rows.features.data();
    rows.input.labels = rows.labels;
    if (comm.rank() == 1) spoil(rows);
    const std::vector<float> weights = AllRows(*engine, "weight");
    const std::vector<float> momentum = AllRows(*engine, "momentum");
    statuses[comm.rank()] = head.Step(rows.input).status();
    EXPECT_EQ(AllRows(*engine, "weight"), weights);
    EXPECT_EQ(AllRows(*engine, "momentum"), momentum);
    return head.Step(good).status();
  });
  return statuses;
}

void ExpectErrorEverywhere(const Spoil& spoil, const std::string& message) {
  for (const EngineKind kind : {EngineKind::kReference, EngineKind::kCpu}) {
    for (const absl::Status& status : StatusesOfSpoiledStep(kind, spoil)) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(Message(status), message);
    }
  }
}

TEST(StepErrors, NameTheRankAndRowOfANan) {
  ExpectErrorEverywhere([](RankRows& rows) { rows.features[2 * 4 + 3] = kNan; },
                        "rank 1: features row 2: a value is not finite");
}

TEST(StepErrors, NameTheRankAndRowOfAnInfinity) {
  ExpectErrorEverywhere([](RankRows& rows) { rows.features[0] = -kInfinity; },
                        "rank 1: features row 0: a value is not finite");
}

TEST(StepErrors, NameTheRankAndRowWithoutLength) {
  const std::string message = "rank 1: features row 1: its length is zero, so it has no direction";
  ExpectErrorEverywhere([](RankRows& rows) { std::fill_n(rows.features.begin() + 4, 4, 0.0F); }, message);
  ExpectErrorEverywhere([](RankRows& rows) { std::fill_n(rows.features.begin() + 4, 4, 1e-42F); }, message);
}

TEST(StepErrors, NameTheRankAndRowThatIsTooLong) {
  ExpectErrorEverywhere([](RankRows& rows) { std::fill_n(rows.features.begin() + 4, 4, 3e38F); },
                        "rank 1: features row 1: its length is not a finite float32");
}

TEST(StepErrors, NameTheRankRowAndValueOfALabel) {
  ExpectErrorEverywhere([](RankRows& rows) { rows.labels[1] = 9; },
                        "rank 1: labels row 1 is 9: allowed is -1 (ignored) or a class in [0, 9)");
  ExpectErrorEverywhere([](RankRows& rows) { rows.labels[2] = -2; },
                        "rank 1: labels row 2 is -2: allowed is -1 (ignored) or a class in [0, 9)");
}

TEST(StepErrors, NameTheRankWithAnotherWidth) {
  ExpectErrorEverywhere(
      [](RankRows& rows) {
        rows.input.features = {rows.features.data(), 3, 3};
      },
      "rank 1: features have width 3, the head has dim 4");
  ExpectErrorEverywhere(
      [](RankRows& rows) {
        rows.input.features = {rows.features.data(), 3, 0};
      },
      "rank 1: features have width 0, the head has dim 4");
}

TEST(StepErrors, NameTheRankWithTooFewRows) {
  ExpectErrorEverywhere([](RankRows& rows) { rows.input.features.rows = 2; },
                        "rank 1: this rank brings 2 rows and 3 labels, but its part of the batch is 3 rows");
  ExpectErrorEverywhere([](RankRows& rows) { rows.input.labels = rows.input.labels.first(1); },
                        "rank 1: this rank brings 3 rows and 1 labels, but its part of the batch is 3 rows");
}

TEST(StepErrors, CarryTheStatusOfTheCaller) {
  ExpectErrorEverywhere([](RankRows& rows) { rows.input.status = InvalidArgument("x.npy row 17 is torn"); },
                        "rank 1: x.npy row 17 is torn");
}

TEST(StepErrors, CarryTheCodeOfTheCaller) {
  const auto statuses = StatusesOfSpoiledStep(
      EngineKind::kCpu, [](RankRows& rows) { rows.input.status = absl::DataLossError("disk gone"); });
  for (const absl::Status& status : statuses) EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
}

TEST(StepErrors, CutTheMiddleOfAMessageThatIsTooLong) {
  const auto statuses = StatusesOfSpoiledStep(EngineKind::kCpu, [](RankRows& rows) {
    rows.input.status = InvalidArgument("features: {}: row 7 is torn", std::string(10'000, 'x'));
  });
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(Message(status), Message(statuses[0]));
    EXPECT_THAT(Message(status), HasSubstr("rank 1: features: xxxx"));
    EXPECT_THAT(Message(status), HasSubstr("x...x"));
    EXPECT_THAT(Message(status), HasSubstr("x: row 7 is torn"));
  }
}

TEST(StepErrors, OfSeveralRanksAreThoseOfTheLowest) {
  const HeadProblem problem = Problem();
  SpawnRanks(kRanks, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, comm.rank(), kRanks, {}));
    ShardedHead head(comm, *engine, problem.classes);
    StepInput input = InputOfRank(problem, comm.rank(), kRanks, {});
    if (comm.rank() > 0) input.status = InvalidArgument("bad {}", comm.rank());
    EXPECT_EQ(Message(head.Step(input).status()), "rank 1: bad 1");
    EXPECT_EQ(Message(head.CountNearest(input).status()), "rank 1: bad 1");
    return absl::OkStatus();
  });
}

// Runs a step with `value` as one weight of class 4, which rank 1 owns, and `labels` in place of those of the problem.
void ExpectDiverged(EngineKind kind, float value, int32_t label, const std::string& message) {
  HeadProblem problem = Problem();
  problem.labels.assign(problem.rows, label);
  problem.weights[4 * 4 + 2] = value;
  SpawnRanks(kRanks, [&](Communicator& comm) -> absl::Status {
    const HeadRunOptions options = {.engine = kind};
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, comm.rank(), kRanks, options));
    ShardedHead head(comm, *engine, problem.classes);
    const std::vector<float> momentum = AllRows(*engine, "momentum");
    const absl::Status status = head.Step(InputOfRank(problem, comm.rank(), kRanks, options)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(Message(status), message);
    EXPECT_EQ(AllRows(*engine, "momentum"), momentum);
    return absl::OkStatus();
  });
}

TEST(StepErrors, NameTheClassWhoseWeightsAreNotFinite) {
  for (const EngineKind kind : {EngineKind::kReference, EngineKind::kCpu}) {
    for (const float value : {kNan, kInfinity, -kInfinity}) {
      ExpectDiverged(kind, value, 7,
                     "rank 1: the weights of class 4 are not finite: they have diverged, lower the learning rate");
      ExpectDiverged(kind, value, 4,
                     "row 0 of the batch: the cosine with its class 4 is not finite; the weights have diverged, lower "
                     "the learning rate");
    }
  }
}

TEST(StepErrors, OfAnEngineWhileItScoresReachEveryRank) {
  const HeadProblem problem = Problem();
  SpawnRanks(kRanks, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(auto inner, EngineOfRank(problem, comm.rank(), kRanks, {}));
    FailingEngine engine(*inner);
    ShardedHead head(comm, engine, problem.classes);
    const StepInput input = InputOfRank(problem, comm.rank(), kRanks, {});
    const std::vector<float> weights = AllRows(engine, "weight");
    if (comm.rank() == 2) engine.score_status = absl::InternalError("the oven is cold");
    absl::Status status = head.Step(input).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_EQ(Message(status), "rank 2: the oven is cold");
    EXPECT_EQ(AllRows(engine, "weight"), weights);
    engine.score_status = absl::OkStatus();
    if (comm.rank() == 1) engine.nearest_status = absl::ResourceExhaustedError("no flour");
    status = head.CountNearest(input).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(Message(status), "rank 1: no flour");
    engine.nearest_status = absl::OkStatus();
    return head.Step(input).status();
  });
}

TEST(StepErrors, OfAnEngineThatScoresNonsenseReachEveryRank) {
  const HeadProblem problem = Problem();
  SpawnRanks(kRanks, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(auto inner, EngineOfRank(problem, comm.rank(), kRanks, {}));
    FailingEngine engine(*inner);
    if (comm.rank() == 1) engine.sum_exp_of_row_3 = kNan;
    ShardedHead head(comm, engine, problem.classes);
    const absl::Status status = head.Step(InputOfRank(problem, comm.rank(), kRanks, {})).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(Message(status),
              "rank 1: the normaliser of row 3 of the batch is not finite; the weights have diverged, lower the "
              "learning rate");
    return absl::OkStatus();
  });
}

// What a failing backward phase on ranks 1 and 2 comes to on each rank: the error that `after` returns.
std::vector<absl::Status> StatusesOfFailedBackward(
    bool want_feature_gradients, const std::function<absl::Status(ShardedHead&, const StepInput&)>& after) {
  const HeadProblem problem = Problem();
  std::vector<absl::Status> statuses(kRanks);
  SpawnRanks(kRanks, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(auto inner, EngineOfRank(problem, comm.rank(), kRanks, {}));
    FailingEngine engine(*inner);
    if (comm.rank() > 0) engine.backward_status = absl::InternalError(comm.rank() == 1 ? "burnt" : "burnt too");
    ShardedHead head(comm, engine, problem.classes);
    StepInput input = InputOfRank(problem, comm.rank(), kRanks, {});
    input.want_feature_gradients = want_feature_gradients;
    statuses[comm.rank()] = after(head, input);
    return absl::OkStatus();
  });
  return statuses;
}

void ExpectBurntEverywhere(const std::vector<absl::Status>& statuses, const std::string& message) {
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_EQ(Message(status), message);
  }
}

TEST(StepErrors, OfTheBackwardPassEndTheStepThatScattersOnEveryRank) {
  ExpectBurntEverywhere(StatusesOfFailedBackward(
                            true, [](ShardedHead& head, const StepInput& input) { return head.Step(input).status(); }),
                        "rank 1: burnt");
}

TEST(StepErrors, OfTheBackwardPassEndTheNextStepOnEveryRankWhereNothingIsScattered) {
  ExpectBurntEverywhere(StatusesOfFailedBackward(false,
                                                 [](ShardedHead& head, const StepInput& input) {
                                                   EXPECT_EQ(head.Step(input).status(), absl::OkStatus());
                                                   return head.Step(input).status();
                                                 }),
                        "rank 1: in the backward phase of the step before: burnt");
}

TEST(StepErrors, OfTheBackwardPassReachEveryRankBeforeTheWeightsAreUsed) {
  ExpectBurntEverywhere(StatusesOfFailedBackward(false,
                                                 [](ShardedHead& head, const StepInput& input) {
                                                   EXPECT_EQ(head.Step(input).status(), absl::OkStatus());
                                                   return head.AgreeOnUpdate();
                                                 }),
                        "rank 1: in the backward phase of the step before: burnt");
  ExpectBurntEverywhere(StatusesOfFailedBackward(false,
                                                 [](ShardedHead& head, const StepInput& input) {
                                                   EXPECT_EQ(head.Step(input).status(), absl::OkStatus());
                                                   return head.CountNearest(input).status();
                                                 }),
                        "rank 1: in the backward phase of the step before: burnt");
}

TEST(StepErrors, OfTheBackwardPassStay) {
  ExpectBurntEverywhere(StatusesOfFailedBackward(false,
                                                 [](ShardedHead& head, const StepInput& input) {
                                                   for (int i = 0; i < 3; ++i) head.Step(input).IgnoreError();
                                                   return head.AgreeOnUpdate();
                                                 }),
                        "rank 1: in the backward phase of the step before: burnt");
}

TEST(StepRequests, AreTheUnionOfAllRanks) {
  const HeadProblem problem = Problem();
  SpawnRanks(kRanks, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, comm.rank(), kRanks, {}));
    ShardedHead head(comm, *engine, problem.classes);
    StepInput input = InputOfRank(problem, comm.rank(), kRanks, {});
    input.requests = comm.rank() == 0 ? 0 : 1U << static_cast<unsigned>(16 * comm.rank() - 1);
    SHARDMAX_ASSIGN_OR_RETURN(const StepResult result, head.Step(input));
    EXPECT_EQ(result.requests, 0x80008000U);
    input.requests = 0;
    SHARDMAX_ASSIGN_OR_RETURN(const StepResult next, head.Step(input));
    EXPECT_EQ(next.requests, 0U);
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace shardmax
