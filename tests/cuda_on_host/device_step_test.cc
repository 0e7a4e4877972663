// Steps between devices: what they cost the host, what overlaps, graphs, and errors that change no weight.
#include <cuda_runtime.h>
#include <gmock/gmock.h>

#include <functional>
#include <limits>

#include "tests/cuda_on_host/control.h"
#include "tests/cuda_on_host/on_cuda.h"
#include "tests/support/compare.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"
#include "worker/engine/device_phases.h"

namespace shardmax {
namespace {

using cuda_on_host::SetMachine;
using cuda_on_host::Timing;
using testing::HasSubstr;

constexpr int kL2Bytes = 100'000;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class DeviceSteps : public testing::Test {
 protected:
  void SetUp() override { SetMachine({.l2_bytes = kL2Bytes}); }
  void TearDown() override { SetMachine({}); }
};

std::vector<float> Rows(const Engine& engine, const std::string& tensor) {
  const Range shard = engine.options().shard;
  std::vector<float> rows(static_cast<size_t>(shard.count * engine.options().dim));
  EXPECT_TRUE(engine.ReadRows(tensor, shard, {rows.data(), shard.count, engine.options().dim}).ok());
  return rows;
}

// A head alone on its device.
void WithHead(const HeadProblem& problem, const HeadRunOptions& options,
              const std::function<void(ShardedHead& head, Engine& engine)>& test) {
  SpawnRanks(1, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, 0, 1, options));
    ShardedHead head(comm, *engine, problem.classes);
    test(head, *engine);
    return absl::OkStatus();
  });
}

// Calls that one step makes: of allocation, and waits of the host; and graphs that it makes and launches.
struct Costs {
  int64_t allocations, waits, graphs, launches;
};

Costs CostsOfStep(ShardedHead& head, const HeadProblem& problem, const HeadRunOptions& options) {
  const Costs before = {cuda_on_host::AllocationCalls(), cuda_on_host::HostWaits(), cuda_on_host::GraphsMade(),
                        cuda_on_host::GraphLaunches()};
  const absl::Status status = head.Step(InputOfRank(problem, 0, 1, options)).status();
  EXPECT_TRUE(status.ok()) << status;
  return {cuda_on_host::AllocationCalls() - before.allocations, cuda_on_host::HostWaits() - before.waits,
          cuda_on_host::GraphsMade() - before.graphs, cuda_on_host::GraphLaunches() - before.launches};
}

TEST_F(DeviceSteps, AllocateNothingAfterTheFirstAndWaitOnce) {
  HeadRunOptions options = OnCuda({.precision = Precision::kBfloat16});
  // More rows than the engine expects, so that the first step allocates.
  const HeadProblem problem = MakeHeadProblem(1, EngineOptions().batch_rows + 5, 20, 200);
  const HeadProblem smaller = MakeHeadProblem(2, 7, 20, 200);
  WithHead(problem, options, [&](ShardedHead& head, Engine&) {
    EXPECT_GT(CostsOfStep(head, problem, options).allocations, 0);
    for (const HeadProblem& next : {problem, smaller, problem}) {
      const Costs costs = CostsOfStep(head, next, options);
      EXPECT_EQ(costs.allocations, 0);
      EXPECT_EQ(costs.waits, 1);
    }
    options.want_feature_gradients = false;
    EXPECT_EQ(CostsOfStep(head, problem, options).waits, 1);
  });
}

TEST_F(DeviceSteps, WaitOnceOnEachRankOverNccl) {
  for (const bool want_feature_gradients : {true, false}) {
    const HeadRunOptions options = OnCuda({.ranks = 2, .want_feature_gradients = want_feature_gradients});
    std::vector<HeadProblem> batches(3, MakeHeadProblem(1, 9, 4, 40));
    std::vector<int64_t> waits;
    for (int i = 0; i < 2; ++i) {
      const int64_t before = cuda_on_host::HostWaits();
      RunHead(batches, options);
      waits.push_back(cuda_on_host::HostWaits() - before);
      batches.push_back(batches.back());
    }
    EXPECT_EQ(waits[1] - waits[0], options.ranks) << "one more step";
  }
}

TEST_F(DeviceSteps, LaunchAGraphAPhaseWhereAShapeRepeats) {
  const HeadRunOptions options = OnCuda({});
  const HeadProblem problem = MakeHeadProblem(1, 33, 20, 397);
  const HeadProblem smaller = MakeHeadProblem(2, 7, 20, 397);
  const HeadProblem larger = MakeHeadProblem(3, EngineOptions().batch_rows + 1, 20, 397);
  WithHead(problem, options, [&](ShardedHead& head, Engine&) {
    const auto graphs = [&](const HeadProblem& next) {
      const Costs costs = CostsOfStep(head, next, options);
      return std::pair<int, int>(costs.graphs, costs.launches);
    };
    EXPECT_EQ(graphs(problem), std::pair(0, 0));
    EXPECT_EQ(graphs(problem), std::pair(2, 2));
    EXPECT_EQ(graphs(problem), std::pair(0, 2));
    EXPECT_EQ(graphs(smaller), std::pair(0, 0));
    EXPECT_EQ(graphs(problem), std::pair(0, 2));
    EXPECT_EQ(graphs(smaller), std::pair(2, 2));
    EXPECT_EQ(graphs(larger), std::pair(0, 0)) << "buffers have moved";
    EXPECT_EQ(graphs(problem), std::pair(0, 0));
    EXPECT_EQ(graphs(problem), std::pair(2, 2));
  });
}

TEST_F(DeviceSteps, AgreeWithTheReferenceWhenShapesComeAndGo) {
  std::vector<HeadProblem> batches;
  for (const int64_t rows : {33, 33, 33, 5, 33, 5, 270, 33, 5, 33, 5}) {
    batches.push_back(MakeHeadProblem(static_cast<uint32_t>(batches.size() + 1), rows, 20, 397));
  }
  HeadRunOptions options = {.optimizer = {.kind = OptimizerKind::kAdamW, .eps = 1e-3}, .lr = 0.01, .loss = {.m3 = 0.3}};
  const HeadOutcome expected = RunHead(batches, options);
  for (const int ranks : {1, 2}) {
    options.ranks = ranks;
    const HeadOutcome outcome = RunHead(batches, OnCuda(options));
    for (const auto& [name, tensor] : expected.tensors) {
      EXPECT_TRUE(MatricesAgree(outcome.tensors.at(name), tensor, 20, {1e-5})) << name << " on " << ranks << " ranks";
    }
  }
}

TEST_F(DeviceSteps, KeepTheLowerRowOfATie) {
  HeadProblem problem = MakeHeadProblem(1, 6, 8, 40);
  for (int64_t row = 1; row < problem.rows; ++row) {
    std::copy_n(problem.features.begin(), problem.dim, problem.features.begin() + row * problem.dim);
    problem.labels[static_cast<size_t>(row)] = problem.labels[0];
  }
  const HeadRunOptions options = {.loss = {.keep = 0.5}};
  const HeadOutcome expected = RunHead(problem, options);
  const HeadOutcome outcome = RunHead(problem, OnCuda(options));
  EXPECT_TRUE(MatricesAgree(outcome.feature_gradients, expected.feature_gradients, problem.dim, {1e-5}));
  EXPECT_EQ(outcome.feature_gradients.back(), 0);
}

TEST_F(DeviceSteps, ByWayOfTheHostAgreeWithTheReferenceToo) {
  const std::vector<HeadProblem> batches = {MakeHeadProblem(1, 31, 20, 397), MakeHeadProblem(2, 18, 20, 397)};
  HeadRunOptions options = {.lr = 0.01, .loss = {.m3 = 0.35, .gamma = 2, .keep = 0.7}};
  const HeadOutcome expected = RunHead(batches, options);
  options.ranks = 2;
  for (const Timing timing : {Timing::kAtOnce, Timing::kLate}) {
    SetMachine({.l2_bytes = kL2Bytes, .timing = timing});
    const HeadOutcome outcome = RunHead(batches, OnCudaByWayOfTheHost(options));
    EXPECT_NEAR(outcome.loss(), expected.loss(), 1e-5 * expected.loss());
    EXPECT_TRUE(MatricesAgree(outcome.feature_gradients, expected.feature_gradients, 20, {1e-5}));
    EXPECT_TRUE(MatricesAgree(outcome.tensors.at("weight"), expected.tensors.at("weight"), 20, {1e-5}));
  }
}

TEST_F(DeviceSteps, OnFrozenFeaturesEndBeforeTheUpdateAndTheNextRowsDoNotWaitForItEither) {
  SetMachine({.l2_bytes = kL2Bytes, .timing = Timing::kLate});
  const HeadRunOptions options = OnCuda({.want_feature_gradients = false});
  const HeadProblem problem = MakeHeadProblem(1, 33, 24, 397);
  const int64_t products = 2 * problem.rows * problem.dim * problem.classes;
  WithHead(problem, options, [&](ShardedHead& head, Engine& engine) {
    const int64_t before = cuda_on_host::ProductFlops();
    const StepInput input = InputOfRank(problem, 0, 1, options);
    ASSERT_TRUE(head.Step(input).ok());
    EXPECT_EQ(cuda_on_host::ProductFlops() - before, products) << "the cosines of the normaliser alone";

    DevicePhases& device = *engine.device();
    const std::vector<Range> rows = {{0, problem.rows}};
    device.Begin({.rows_of_rank = rows, .want_feature_gradients = false}, input.loss, input.rule);
    ASSERT_TRUE(device.SendRows().ok());
    ASSERT_EQ(cudaStreamSynchronize(device.wire()), cudaSuccess);
    EXPECT_EQ(cuda_on_host::ProductFlops() - before, products) << "the rows are there before the update";

    Rows(engine, "weight");
    EXPECT_EQ(cuda_on_host::ProductFlops() - before, 3 * products);
  });
}

// What a rank does wrong in the second of three steps.
struct Wrong {
  std::function<void(StepInput& input, std::vector<float>& features, std::vector<int32_t>& labels)> input;
  std::function<void(Engine& engine)> engine;
};

constexpr int kRanks = 3;

// A good step, one that rank 1 spoils, and a good one: the statuses of the second by rank. It must leave weights and
// momentum as the first did.
std::vector<absl::Status> StatusesOfSpoiledStep(bool want_feature_gradients, const Wrong& wrong) {
  const HeadProblem problem = MakeHeadProblem(1, 10, 4, 9);  // Rank 1 has rows 4 to 6 and classes 3 to 5.
  HeadRunOptions options = OnCuda({.ranks = kRanks, .want_feature_gradients = want_feature_gradients});
  options.optimizer.weight_decay = 0.1;  // Weights would change without a gradient.
  std::vector<absl::Status> statuses(kRanks);
  SpawnRanks(kRanks, [&](Communicator& bootstrap) -> absl::Status {
    const int rank = bootstrap.rank();
    SHARDMAX_ASSIGN_OR_RETURN(const auto comm, options.connect(bootstrap));
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, rank, kRanks, options));
    ShardedHead head(*comm, *engine, problem.classes);
    const StepInput good = InputOfRank(problem, rank, kRanks, options);
    SHARDMAX_RETURN_IF_ERROR(head.Step(good).status());

    StepInput input = good;
    std::vector<float> features(good.features.flat().begin(), good.features.flat().end());
    std::vector<int32_t> labels(good.labels.begin(), good.labels.end());
    input.features.data = features.data();
    input.labels = labels;
    const std::vector<float> weights = Rows(*engine, "weight");
    const std::vector<float> momentum = Rows(*engine, "momentum");
    if (rank == 1 && wrong.input) wrong.input(input, features, labels);
    if (rank == 1 && wrong.engine) wrong.engine(*engine);
    statuses[static_cast<size_t>(rank)] = head.Step(input).status();
    EXPECT_EQ(Rows(*engine, "momentum"), momentum);
    const MatrixView<const float> as_before = {weights.data(), engine->options().shard.count, problem.dim};
    if (wrong.engine) {
      SHARDMAX_RETURN_IF_ERROR(engine->WriteRows("weight", engine->options().shard, as_before));
    } else {
      EXPECT_EQ(Rows(*engine, "weight"), weights);
    }
    return head.Step(good).status();
  });
  return statuses;
}

void ExpectErrorEverywhere(const Wrong& wrong, absl::StatusCode code, const std::string& message) {
  for (const Timing timing : {Timing::kAtOnce, Timing::kLate}) {
    SetMachine({.l2_bytes = kL2Bytes, .timing = timing});
    for (const bool want_feature_gradients : {true, false}) {
      for (const absl::Status& status : StatusesOfSpoiledStep(want_feature_gradients, wrong)) {
        EXPECT_EQ(status.code(), code);
        EXPECT_EQ(Message(status), message);
      }
    }
  }
}

TEST_F(DeviceSteps, NameTheRankAndRowThatIsWrongAndChangeNothing) {
  ExpectErrorEverywhere(
      {.input = [](StepInput&, std::vector<float>& features, std::vector<int32_t>&) { features[2 * 4 + 3] = kNan; }},
      absl::StatusCode::kInvalidArgument, "rank 1: features row 2: a value is not finite");
  ExpectErrorEverywhere({.input = [](StepInput&, std::vector<float>&, std::vector<int32_t>& labels) { labels[1] = 9; }},
                        absl::StatusCode::kInvalidArgument,
                        "rank 1: labels row 1 is 9: allowed is -1 (ignored) or a class in [0, 9)");
  ExpectErrorEverywhere({.input = [](StepInput& input, std::vector<float>&,
                                     std::vector<int32_t>&) { input.status = absl::DataLossError("a bad disk"); }},
                        absl::StatusCode::kDataLoss, "rank 1: a bad disk");
}

// Puts a NaN into a class of rank 1.
Wrong BadClass(int64_t global_class) {
  return {.engine = [global_class](Engine& engine) {
    const std::vector<float> weights = {1, kNan, 1, 1};
    EXPECT_TRUE(engine.WriteRows("weight", {global_class, 1}, {weights.data(), 1, 4}).ok());
  }};
}

TEST_F(DeviceSteps, NameTheWeightsThatAreNotFiniteAndChangeNothing) {
  const HeadProblem problem = MakeHeadProblem(1, 10, 4, 9);
  for (int32_t k = 3; k < 6; ++k) {
    const auto row = std::find(problem.labels.begin(), problem.labels.end(), k) - problem.labels.begin();
    const std::string message =
        row < problem.rows ? fmt::format(
                                 "row {} of the batch: the cosine with its class {} is not finite; the weights "
                                 "have diverged, lower the learning rate",
                                 row, k)
                           : fmt::format(
                                 "rank 1: the weights of class {} are not finite: they have diverged, lower "
                                 "the learning rate",
                                 k);
    ExpectErrorEverywhere(BadClass(k), absl::StatusCode::kFailedPrecondition, message);
  }
}

// Rank 1 cannot launch a kernel in its second step: the statuses of that step by rank, or of the next one where this
// one does not tell.
std::vector<absl::Status> StatusesWithFailedLaunch(int64_t launch, bool want_feature_gradients) {
  const HeadProblem problem = MakeHeadProblem(1, 10, 4, 9);
  const HeadRunOptions options = OnCuda({.ranks = 2, .want_feature_gradients = want_feature_gradients});
  std::vector<absl::Status> statuses(2);
  SpawnRanks(2, [&](Communicator& bootstrap) -> absl::Status {
    const int rank = bootstrap.rank();
    SHARDMAX_ASSIGN_OR_RETURN(const auto comm, options.connect(bootstrap));
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, rank, 2, options));
    ShardedHead head(*comm, *engine, problem.classes);
    const StepInput input = InputOfRank(problem, rank, 2, options);
    SHARDMAX_RETURN_IF_ERROR(head.Step(input).status());
    SHARDMAX_RETURN_IF_ERROR(bootstrap.Barrier());
    if (rank == 1) cuda_on_host::SetLaunchFault({.device = 1, .launch = launch});
    absl::Status status = head.Step(input).status();
    if (status.ok()) status = head.Step(input).status();
    statuses[static_cast<size_t>(rank)] = status;
    return absl::OkStatus();
  });
  cuda_on_host::SetLaunchFault({});
  return statuses;
}

TEST_F(DeviceSteps, ThatCannotLaunchOnOneRankEndOnAllAndNameIt) {
  // Unpack, label cosines, targets, scores, union; after the outcome of three kernels gradients and update.
  for (const int64_t launch : {1, 2, 3, 4, 5, 9, 10}) {
    for (const bool want_feature_gradients : {true, false}) {
      SCOPED_TRACE(testing::Message() << "launch " << launch << ", gradients " << want_feature_gradients);
      for (const absl::Status& status : StatusesWithFailedLaunch(launch, want_feature_gradients)) {
        EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
        EXPECT_THAT(Message(status), HasSubstr("rank 1: "));
        EXPECT_THAT(Message(status), HasSubstr("Launch"));
      }
    }
  }
}

TEST_F(DeviceSteps, ThatFindNoRoomOnOneRankEndOnAllAndTheNextOneFinds) {
  const HeadProblem small = MakeHeadProblem(1, 10, 8, 9);
  const HeadProblem large = MakeHeadProblem(2, 5000, 8, 9);
  const HeadRunOptions options = OnCuda({.ranks = 2});
  SpawnRanks(2, [&](Communicator& bootstrap) -> absl::Status {
    const int rank = bootstrap.rank();
    SHARDMAX_ASSIGN_OR_RETURN(const auto comm, options.connect(bootstrap));
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(small, rank, 2, options));
    ShardedHead head(*comm, *engine, small.classes);
    SHARDMAX_RETURN_IF_ERROR(head.Step(InputOfRank(small, rank, 2, options)).status());
    SHARDMAX_RETURN_IF_ERROR(bootstrap.Barrier());
    // All that is free on one device.
    void* hog = nullptr;
    size_t free_bytes = 0, total_bytes = 0;
    if (rank == 1) {
      EXPECT_EQ(cudaSetDevice(rank), cudaSuccess);
      EXPECT_EQ(cudaMemGetInfo(&free_bytes, &total_bytes), cudaSuccess);
      EXPECT_EQ(cudaMalloc(&hog, free_bytes - 100'000), cudaSuccess);
    }
    const absl::Status status = head.Step(InputOfRank(large, rank, 2, options)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_THAT(Message(status), HasSubstr("rank 1: cannot allocate"));
    EXPECT_EQ(cudaFree(hog), cudaSuccess);
    return head.Step(InputOfRank(small, rank, 2, options)).status();
  });
}

}  // namespace
}  // namespace shardmax
