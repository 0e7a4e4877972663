// The cost model against what a step moves and does.
#include "worker/cost_model.h"

#include <gmock/gmock.h>

#include "tests/cuda_on_host/control.h"
#include "tests/cuda_on_host/on_cuda.h"

namespace shardmax {
namespace {

constexpr int kL2Bytes = 100'000;

TEST(CostModel, CountsTheBytesAndOperationsOfAStep) {
  cuda_on_host::SetMachine({.l2_bytes = kL2Bytes});
  const HeadProblem problem = MakeHeadProblem(1, 31, 24, 600);
  for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16}) {
    for (const bool with_feature_gradients : {true, false}) {
      HeadRunOptions options = {.ranks = 3, .precision = precision, .want_feature_gradients = with_feature_gradients};
      const int64_t before = cuda_on_host::ProductFlops();
      const HeadOutcome outcome = RunHead(problem, OnCuda(options));
      const EngineOptions shard = {
          .shard = {0, 200}, .dim = 24, .optimizer = {.momentum = 0.9}, .precision = precision};
      const DeviceStepCost cost = CostOfStep(shard, 31, 3, with_feature_gradients, kL2Bytes);
      EXPECT_EQ(cuda_on_host::ProductFlops() - before, 3 * cost.product_flops);
      const CommStats& stats = outcome.stats[0];
      EXPECT_EQ(stats.all_gather.bytes, cost.gather_bytes + cost.normalise_bytes);
      EXPECT_EQ(stats.all_reduce.bytes, cost.label_bytes);
      EXPECT_EQ(stats.reduce_scatter.bytes, cost.scatter_bytes);
    }
  }
  cuda_on_host::SetMachine({});
}

TEST(CostModel, SaysWhatDominatesAndWhatDoesNotFit) {
  EngineOptions options = {
      .shard = {0, 125'000}, .dim = 512, .optimizer = {.momentum = 0.9}, .precision = Precision::kFloat32};
  const std::string text = DescribeCost(options, 1024, 8, true, H100(8));
  EXPECT_THAT(text, testing::HasSubstr("memory of a rank: "));
  EXPECT_THAT(text, testing::HasSubstr("so products dominate"));
  EXPECT_THAT(text, testing::HasSubstr("model, not measured"));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("does not fit")));
  options.shard.count = 100'000'000;
  EXPECT_THAT(DescribeCost(options, 1024, 1, true, H100(1)), testing::HasSubstr("it does not fit"));
}

}  // namespace
}  // namespace shardmax
