// What the CUDA engine promises beside numbers: rows in and out, memory, waits, and clear errors.
#include <gmock/gmock.h>

#include <limits>

#include "tests/cuda_on_host/control.h"
#include "tests/cuda_on_host/on_cuda.h"
#include "tests/support/compare.h"
#include "worker/base/status.h"
#include "worker/engine/cuda/device.h"
#include "worker/engine/cuda/device_plan.h"

namespace shardmax {
namespace {

using cuda_on_host::Machine;
using cuda_on_host::SetMachine;
using testing::ElementsAre;
using testing::HasSubstr;

class CudaEngineContract : public testing::Test {
 protected:
  void SetUp() override { SetMachine({.l2_bytes = 100'000}); }
  void TearDown() override { SetMachine({}); }

  static std::unique_ptr<Engine> Make(const EngineOptions& options) {
    auto engine = MakeCudaEngine(options, 0);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return std::move(engine).value();
  }
};

TEST_F(CudaEngineContract, RowsAreZeroAtFirstAndComeBackAsWritten) {
  const auto engine = Make({.shard = {10, 5}, .dim = 3, .optimizer = {.kind = OptimizerKind::kAdamW}});
  std::vector<float> all(15, 1);
  for (const char* tensor : {"weight", "exp_avg", "exp_avg_sq"}) {
    ASSERT_TRUE(engine->ReadRows(tensor, {10, 5}, {all.data(), 5, 3}).ok());
    EXPECT_THAT(all, testing::Each(0)) << tensor;
  }
  const std::vector<float> two = {1, 2, 3, 4, 5, 6};
  ASSERT_TRUE(engine->WriteRows("exp_avg", {12, 2}, {two.data(), 2, 3}).ok());
  ASSERT_TRUE(engine->ReadRows("exp_avg", {10, 5}, {all.data(), 5, 3}).ok());
  EXPECT_THAT(all, ElementsAre(0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0));
  ASSERT_TRUE(engine->ReadRows("weight", {10, 5}, {all.data(), 5, 3}).ok());
  EXPECT_THAT(all, testing::Each(0));
}

TEST_F(CudaEngineContract, RowsThatAreNotThereAreRefused) {
  const auto engine = Make({.shard = {10, 5}, .dim = 3});
  std::vector<float> rows(20);
  EXPECT_EQ(Message(engine->ReadRows("momentum", {10, 5}, {rows.data(), 5, 3})), "the shard has no tensor 'momentum'");
  EXPECT_EQ(Message(engine->WriteRows("weight", {9, 5}, {rows.data(), 5, 3})),
            "classes [9, 14) are not in the shard [10, 15)");
  EXPECT_EQ(Message(engine->ReadRows("weight", {10, 5}, {rows.data(), 4, 3})),
            "rows are [4, 3], but 5 classes of width 3 were asked for");
}

TEST_F(CudaEngineContract, EveryOptimizerAgreesWithTheReference) {
  const LossParams loss = {.m3 = 0.35, .t = 1.2};
  std::vector<HeadProblem> batches;
  // Graphs are made in the second step of a shape and used in those that follow.
  for (const int64_t rows : {33, 33, 33, 20, 33}) {
    batches.push_back(MakeHeadProblem(static_cast<uint32_t>(batches.size() + 1), rows, 17, 197));
    AvoidThresholds(loss, 1e-6, batches.back());
  }
  for (const OptimizerParams& optimizer : std::vector<OptimizerParams>{
           {},
           {.weight_decay = 0.1},
           {.weight_decay = 5e-4, .momentum = 0.9},
           {.weight_decay = 0.1, .momentum = 0.9, .nesterov = true},
           {.kind = OptimizerKind::kAdamW, .weight_decay = 0.01, .eps = 1e-3},
       }) {
    HeadRunOptions options = {.optimizer = optimizer, .lr = 0.01, .loss = loss};
    const HeadOutcome expected = RunHead(batches, options);
    const HeadOutcome outcome = RunHead(batches, OnCuda(options));
    for (const auto& [name, tensor] : expected.tensors) {
      EXPECT_TRUE(MatricesAgree(outcome.tensors.at(name), tensor, 17, {1e-5})) << name;
    }
    options.want_feature_gradients = false;
    EXPECT_EQ(RunHead(batches, OnCuda(options)).tensors, outcome.tensors);
    EXPECT_EQ(RunHead(batches, OnCudaByWayOfTheHost(options)).tensors, outcome.tensors) << "one rank";
  }
}

// Weights [300, 2] in the plane: most point away from both axes of the features below, some along them.
std::vector<float> WeightsWithTies() {
  std::vector<float> weights(600, -1);
  for (const int64_t k : {7, 200, 290}) {
    weights[2 * k] = 2;
    weights[2 * k + 1] = 0;
  }
  weights[2 * 250] = 0;
  weights[2 * 250 + 1] = 0.5;
  return weights;
}

TEST_F(CudaEngineContract, NearestClassesTakeTheLowerOfATie) {
  const std::vector<float> weights = WeightsWithTies();
  const std::vector<float> features = {1, 0, 0, 1};
  // A tile of many warps, and tiles of one.
  for (const int l2_bytes : {10'000'000, 100'000}) {
    for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16}) {
      SetMachine({.l2_bytes = l2_bytes});
      const auto engine = Make({.shard = {10, 300}, .dim = 2, .precision = precision});
      ASSERT_TRUE(engine->WriteRows("weight", {10, 300}, {weights.data(), 300, 2}).ok());
      std::vector<float> cosines(2);
      std::vector<int32_t> classes(2);
      ASSERT_TRUE(engine->NearestClasses({features.data(), 2, 2}, cosines, classes).ok());
      EXPECT_THAT(classes, ElementsAre(17, 260));
      EXPECT_THAT(cosines, ElementsAre(1, 1));
    }
  }
}

TEST_F(CudaEngineContract, AShardOfTheLabelAloneScoresNothing) {
  const auto engine = Make({.shard = {10, 1}, .dim = 2});
  const std::vector<float> weight = {0.5, 2};
  ASSERT_TRUE(engine->WriteRows("weight", {10, 1}, {weight.data(), 1, 2}).ok());
  const std::vector<float> features = {1, 0, 0, 1};
  const std::vector<int32_t> labels = {10, 3};
  const std::vector<float> thresholds = {-2, -2};
  std::vector<ShardPartial> partials(2);
  ASSERT_TRUE(
      engine->Score({.features = {features.data(), 2, 2}, .labels = labels}, {30, 36, 6}, thresholds, partials).ok());
  EXPECT_EQ(partials[0].sum_exp, 0);
  EXPECT_EQ(partials[0].max_logit, -std::numeric_limits<float>::infinity());
  EXPECT_NEAR(partials[1].sum_exp, 1, 1e-5);
  EXPECT_EQ(partials[1].support_vectors, 1);
}

TEST_F(CudaEngineContract, WeightsThatAreNotFiniteAreNamed) {
  const auto engine = Make({.shard = {10, 300}, .dim = 2});
  std::vector<float> weights(600, 1);
  weights[2 * 222] = std::numeric_limits<float>::infinity();
  weights[2 * 290] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_TRUE(engine->WriteRows("weight", {10, 300}, {weights.data(), 300, 2}).ok());
  const std::vector<float> features = {1, 0};
  std::vector<float> cosines(1);
  std::vector<int32_t> classes(1);
  const absl::Status status = engine->NearestClasses({features.data(), 1, 2}, cosines, classes);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), HasSubstr("the weights of class 232 are not finite"));
}

TEST_F(CudaEngineContract, AllocatesWhatItsPlanSays) {
  for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16}) {
    const EngineOptions options = {.shard = {0, 777},
                                   .dim = 51,
                                   .optimizer = {.momentum = 0.9},
                                   .precision = precision,
                                   .batch_rows = 33,
                                   .ranks = 4};
    const size_t before = cuda_on_host::AllocatedBytes();
    const auto engine = Make(options);
    const auto plan = cuda::PlanDevice(options, 33, 100'000);
    EXPECT_EQ(static_cast<int64_t>(cuda_on_host::AllocatedBytes() - before), plan.total_bytes());
    const int64_t allocations = cuda_on_host::AllocationCalls();
    const std::vector<float> features(33 * 51, 0.1F);
    std::vector<float> cosines(33);
    std::vector<int32_t> classes(33);
    ASSERT_TRUE(engine->NearestClasses({features.data(), 33, 51}, cosines, classes).ok());
    EXPECT_EQ(cuda_on_host::AllocationCalls(), allocations) << "batch_rows was known";
  }
}

TEST_F(CudaEngineContract, AShardThatDoesNotFitIsRefusedWithTheLargestThatDoes) {
  SetMachine({.memory_bytes = size_t{1} << 30, .l2_bytes = 100'000});
  EngineOptions options = {.shard = {0, 1'000'000}, .dim = 512, .optimizer = {.momentum = 0.9}, .batch_rows = 256};
  const auto refused = MakeCudaEngine(options, 0);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  const int64_t needed = cuda::PlanDevice(options, 256, 100'000).total_bytes();
  EXPECT_THAT(Message(refused.status()),
              HasSubstr(fmt::format("a shard of 1000000 classes x 512 with batches of 256 rows needs {} bytes of GPU 0 "
                                    "(host stand-in), 1006632960 of its 1073741824 are usable: at most ",
                                    needed)));
  EXPECT_EQ(cuda_on_host::AllocatedBytes(), 0) << "refused before anything was allocated";
  options.shard.count = cuda::LargestShard(options, 256, 100'000, 1006632960);
  EXPECT_THAT(Message(refused.status()), HasSubstr(fmt::format("at most {} classes a rank fit", options.shard.count)));
  EXPECT_TRUE(MakeCudaEngine(options, 0).ok());
  ++options.shard.count;
  EXPECT_FALSE(MakeCudaEngine(options, 0).ok());
}

TEST_F(CudaEngineContract, WithoutADriverOrAFittingDeviceItSaysWhatToDo) {
  const EngineOptions options = {.shard = {0, 5}, .dim = 3};
  SetMachine({.driver = false});
  absl::Status status = MakeCudaEngine(options, 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), testing::AllOf(HasSubstr("no usable NVIDIA driver on this machine (CUDA driver version "
                                                        "is insufficient"),
                                              HasSubstr("install one for CUDA 13.0 or newer, or use --backend=cpu")));
  EXPECT_FALSE(cuda::CountDevices().ok());
  SetMachine({.devices = 0});
  EXPECT_EQ(*cuda::CountDevices(), 0);
  EXPECT_THAT(Message(cuda::DeviceOfRank(0, 1).status()), HasSubstr("shows no GPU to this process"));
  SetMachine({.devices = 2});
  EXPECT_EQ(*cuda::DeviceOfRank(1, 2), 1);
  EXPECT_EQ(Message(cuda::DeviceOfRank(0, 3).status()),
            "3 ranks on this machine, but 2 GPUs: start at most a rank a GPU (mpirun --map-by ppr:2:node)");
  SetMachine({.compute_capability = 75});
  status = MakeCudaEngine(options, 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), HasSubstr("GPU 1 (host stand-in) has compute capability 7.5: bfloat16 products and this "
                                         "build's kernels need 8.0 or higher"));
}

TEST_F(CudaEngineContract, RefusesStateInBfloat16) {
  EngineOptions options = {.shard = {0, 5}, .dim = 3};
  options.optimizer.state_type = StateType::kBfloat16;
  const absl::Status status = MakeCudaEngine(options, 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(status),
              HasSubstr("train.optimizer.state is BFLOAT16: the cuda engine holds optimizer state in"));
}

TEST_F(CudaEngineContract, AStepRepeatsBitForBit) {
  const std::vector<HeadProblem> batches = {MakeHeadProblem(1, 40, 33, 500), MakeHeadProblem(2, 21, 33, 500)};
  for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16}) {
    const HeadRunOptions options = OnCuda({.ranks = 2, .precision = precision, .loss = {.m3 = 0.35, .t = 1.2}});
    SetMachine({.l2_bytes = 100'000});
    const HeadOutcome once = RunHead(batches, options);
    SetMachine({.l2_bytes = 100'000, .timing = cuda_on_host::Timing::kSometimes, .seed = 9});
    const HeadOutcome again = RunHead(batches, options);
    EXPECT_EQ(once.tensors, again.tensors);
    EXPECT_EQ(once.feature_gradients, again.feature_gradients);
    EXPECT_EQ(once.loss(), again.loss());
  }
}

}  // namespace
}  // namespace shardmax
