// Errors of steps between devices: every rank returns the same, and no weight changes.
#include <cuda_runtime.h>
#include <gmock/gmock.h>

#include <functional>
#include <limits>

#include "tests/cuda_on_host/control.h"
#include "tests/cuda_on_host/on_cuda.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

using cuda_on_host::SetMachine;
using cuda_on_host::Timing;
using testing::HasSubstr;

constexpr int kL2Bytes = 100'000;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class SpoiledDeviceSteps : public testing::Test {
 protected:
  void SetUp() override { SetMachine({.l2_bytes = kL2Bytes}); }
  void TearDown() override { SetMachine({}); }
};

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

TEST_F(SpoiledDeviceSteps, NameTheRankAndRowThatIsWrongAndChangeNothing) {
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

TEST_F(SpoiledDeviceSteps, NameTheWeightsThatAreNotFiniteAndChangeNothing) {
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

// Rank 1 cannot launch a kernel in its second step, of a shape of its own so that nothing is captured: the statuses of
// that step by rank, or of the next one where this one does not tell.
std::vector<absl::Status> StatusesWithFailedLaunches(const std::vector<int>& launches, bool want_feature_gradients) {
  const HeadProblem problem = MakeHeadProblem(1, 10, 4, 9);
  const HeadProblem smaller = MakeHeadProblem(2, 8, 4, 9);
  const HeadRunOptions options = OnCuda({.ranks = 2, .want_feature_gradients = want_feature_gradients});
  std::vector<absl::Status> statuses(2);
  SpawnRanks(2, [&](Communicator& bootstrap) -> absl::Status {
    const int rank = bootstrap.rank();
    SHARDMAX_ASSIGN_OR_RETURN(const auto comm, options.connect(bootstrap));
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, rank, 2, options));
    ShardedHead head(*comm, *engine, problem.classes);
    SHARDMAX_RETURN_IF_ERROR(head.Step(InputOfRank(problem, rank, 2, options)).status());
    SHARDMAX_RETURN_IF_ERROR(bootstrap.Barrier());
    const StepInput input = InputOfRank(smaller, rank, 2, options);
    if (rank == 1) cuda_on_host::SetLaunchFault({.device = 1, .launches = launches});
    absl::Status status = head.Step(input).status();
    if (status.ok()) status = head.Step(input).status();
    statuses[static_cast<size_t>(rank)] = status;
    return absl::OkStatus();
  });
  cuda_on_host::SetLaunchFault({});
  return statuses;
}

TEST_F(SpoiledDeviceSteps, ThatCannotLaunchOnOneRankEndOnAllAndNameIt) {
  // Unpack, label cosines, targets, scores, union; after the outcome of three kernels gradients and update. Last:
  // targets are not there, and then the gradients neither.
  const std::vector<std::vector<int>> cases = {{1}, {2}, {3}, {4}, {5}, {9}, {10}, {3, 7}};
  for (const std::vector<int>& launches : cases) {
    for (const bool want_feature_gradients : {true, false}) {
      SCOPED_TRACE(testing::Message() << "launches " << testing::PrintToString(launches) << ", gradients "
                                      << want_feature_gradients);
      for (const absl::Status& status : StatusesWithFailedLaunches(launches, want_feature_gradients)) {
        EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
        EXPECT_THAT(Message(status), HasSubstr("rank 1: "));
        EXPECT_THAT(Message(status), HasSubstr("Launch"));
      }
    }
  }
}

TEST_F(SpoiledDeviceSteps, ThatFindNoRoomOnOneRankEndOnAllAndTheNextOneFinds) {
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
