// Steps between devices: what they cost the host, what overlaps, graphs, rows of any number.
#include <cuda_runtime.h>
#include <gmock/gmock.h>

#include <functional>

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

constexpr int kL2Bytes = 100'000;

class DeviceSteps : public testing::Test {
 protected:
  void SetUp() override { SetMachine({.l2_bytes = kL2Bytes}); }
  void TearDown() override { SetMachine({}); }
};

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

TEST_F(DeviceSteps, GoOnWithoutGraphsWhereNoneCanBeCaptured) {
  std::vector<HeadProblem> batches(4, MakeHeadProblem(1, 33, 20, 397));
  HeadRunOptions options = {.lr = 0.01, .loss = {.m3 = 0.3}};
  const HeadOutcome expected = RunHead(batches, options);
  SetMachine({.l2_bytes = kL2Bytes, .graphs = false});
  const int64_t launches = cuda_on_host::GraphLaunches();
  options.ranks = 2;
  const HeadOutcome outcome = RunHead(batches, OnCuda(options));
  EXPECT_EQ(cuda_on_host::GraphLaunches(), launches);
  EXPECT_TRUE(MatricesAgree(outcome.feature_gradients, expected.feature_gradients, 20, {1e-5}));
  EXPECT_TRUE(MatricesAgree(outcome.tensors.at("weight"), expected.tensors.at("weight"), 20, {1e-5}));
}

TEST_F(DeviceSteps, TakeUnevenAndChangingRowsOfRanks) {
  HeadProblem problem = MakeHeadProblem(60, 23, 13, 103);
  problem.labels[4] = -1;
  const HeadRunOptions alone_options = {.lr = 0.01, .loss = {.m3 = 0.35, .t = 1.2, .keep = 0.9}};
  AvoidThresholds(alone_options.loss, 1e-5, problem);
  const std::vector<std::vector<int64_t>> rows_by_step = {{8, 8, 7}, {1, 15, 7}, {0, 0, 23}, {11, 0, 12}, {8, 8, 7}};
  const HeadOutcome alone = RunHead(std::vector<HeadProblem>(rows_by_step.size(), problem), alone_options);
  const HeadRunOptions options = OnCuda({.ranks = 3, .lr = alone_options.lr, .loss = alone_options.loss});
  std::vector<float> gradients(problem.features.size());
  SpawnRanks(options.ranks, [&](Communicator& bootstrap) -> absl::Status {
    const int rank = bootstrap.rank();
    SHARDMAX_ASSIGN_OR_RETURN(const auto comm, options.connect(bootstrap));
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, rank, options.ranks, options));
    ShardedHead head(*comm, *engine, problem.classes);
    for (size_t step = 0; step < rows_by_step.size(); ++step) {
      const StepInput input = UnevenInput(problem, rank, rows_by_step[step], options);
      SHARDMAX_ASSIGN_OR_RETURN(const StepResult result, head.Step(input));
      EXPECT_NEAR(result.loss, alone.steps[step].loss, 1e-5 * alone.steps[step].loss) << "step " << step;
      EXPECT_EQ(result.feature_gradients.rows, rows_by_step[step][static_cast<size_t>(rank)]);
      const auto mine = result.feature_gradients.flat();  // Of rows that no other rank has.
      std::copy(mine.begin(), mine.end(), gradients.begin() + (input.features.data - problem.features.data()));
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(MatricesAgree(gradients, alone.feature_gradients, problem.dim, {1e-5}));
}

}  // namespace
}  // namespace shardmax
