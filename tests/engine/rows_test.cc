// Tensors of a shard, in and out, and engines that cannot be made.
#include <gmock/gmock.h>

#include <limits>

#include "tests/support/head_run.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

class EngineRows : public testing::TestWithParam<EngineKind> {
 protected:
  std::unique_ptr<Engine> Make(const OptimizerParams& optimizer) {
    auto engine = EngineOfKind(GetParam(), {.shard = {.first = 10, .count = 5}, .dim = 3, .optimizer = optimizer});
    EXPECT_TRUE(engine.ok()) << engine.status();
    return std::move(engine).value();
  }
};

TEST_P(EngineRows, AreZeroAtFirst) {
  const auto engine = Make({.kind = OptimizerKind::kAdamW});
  for (const char* tensor : {"weight", "exp_avg", "exp_avg_sq"}) {
    std::vector<float> rows(15, 1);
    ASSERT_TRUE(engine->ReadRows(tensor, {10, 5}, {rows.data(), 5, 3}).ok());
    EXPECT_THAT(rows, testing::Each(0)) << tensor;
  }
}

TEST_P(EngineRows, ComeBackAsWrittenAndTouchNoOthers) {
  const auto engine = Make({.momentum = 0.9});
  const std::vector<float> two = {1, 2, 3, 4, 5, 6};
  ASSERT_TRUE(engine->WriteRows("momentum", {12, 2}, {two.data(), 2, 3}).ok());
  std::vector<float> all(15, -1);
  ASSERT_TRUE(engine->ReadRows("momentum", {10, 5}, {all.data(), 5, 3}).ok());
  EXPECT_THAT(all, testing::ElementsAre(0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0));
  ASSERT_TRUE(engine->ReadRows("weight", {10, 5}, {all.data(), 5, 3}).ok());
  EXPECT_THAT(all, testing::Each(0));
}

TEST_P(EngineRows, OfStateInBfloat16AreRoundedToTheNearestAndComeBack) {
  const auto engine = Make({.momentum = 0.9, .state_type = StateType::kBfloat16});
  const std::vector<float> values = {1, -2.5F, 1 + 0.4F / 128, 1 + 0.6F / 128, 0, 1e-30F};
  ASSERT_TRUE(engine->WriteRows("momentum", {12, 2}, {values.data(), 2, 3}).ok());
  std::vector<float> read(6), again(6);
  ASSERT_TRUE(engine->ReadRows("momentum", {12, 2}, {read.data(), 2, 3}).ok());
  EXPECT_THAT(std::vector<float>(read.begin(), read.begin() + 5), testing::ElementsAre(1, -2.5F, 1, 1 + 1.0F / 128, 0));
  EXPECT_NEAR(read[5], 1e-30, 1e-32);
  ASSERT_TRUE(engine->WriteRows("momentum", {12, 2}, {read.data(), 2, 3}).ok());
  ASSERT_TRUE(engine->ReadRows("momentum", {12, 2}, {again.data(), 2, 3}).ok());
  EXPECT_EQ(again, read);
  ASSERT_TRUE(engine->WriteRows("weight", {12, 2}, {values.data(), 2, 3}).ok());
  ASSERT_TRUE(engine->ReadRows("weight", {12, 2}, {read.data(), 2, 3}).ok());
  EXPECT_EQ(read, values) << "weights stay float32";
}

TEST_P(EngineRows, RefuseATensorThatTheOptimizerHasNot) {
  const auto engine = Make({});
  std::vector<float> rows(15);
  const absl::Status status = engine->ReadRows("momentum", {10, 5}, {rows.data(), 5, 3});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Message(status), "the shard has no tensor 'momentum'");
}

TEST_P(EngineRows, RefuseClassesOutsideTheShard) {
  const auto engine = Make({});
  std::vector<float> rows(15);
  for (const Range classes : {Range{9, 5}, Range{11, 5}, Range{0, 5}}) {
    const std::string message =
        fmt::format("classes [{}, {}) are not in the shard [10, 15)", classes.first, classes.end());
    EXPECT_EQ(Message(engine->ReadRows("weight", classes, {rows.data(), 5, 3})), message);
    EXPECT_EQ(Message(engine->WriteRows("weight", classes, {rows.data(), 5, 3})), message);
  }
}

TEST_P(EngineRows, RefuseAnotherShape) {
  const auto engine = Make({});
  std::vector<float> rows(20);
  EXPECT_EQ(Message(engine->ReadRows("weight", {10, 5}, {rows.data(), 4, 3})),
            "rows are [4, 3], but 5 classes of width 3 were asked for");
  EXPECT_EQ(Message(engine->WriteRows("weight", {10, 5}, {rows.data(), 5, 4})),
            "rows are [5, 4], but 5 classes of width 3 were asked for");
}

TEST_P(EngineRows, ThatDoNotFitIntoMemoryAreRefusedWithTheirSize) {
  const auto engine = EngineOfKind(
      GetParam(), {.shard = {.first = 0, .count = int64_t{1} << 40}, .dim = 4096, .optimizer = {.momentum = 0.9}});
  EXPECT_EQ(engine.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(engine.status()),
              testing::HasSubstr("tensor 'weight' of 1099511627776 classes x 4096: cannot allocate 18014398509481984"));
}

TEST_P(EngineRows, OfTheLabelAloneScoreNothing) {
  const auto engine = EngineOfKind(GetParam(), {.shard = {.first = 10, .count = 1}, .dim = 2, .threads = 2});
  ASSERT_TRUE(engine.ok()) << engine.status();
  const std::vector<float> weight = {0.5, 2};
  ASSERT_TRUE((*engine)->WriteRows("weight", {10, 1}, {weight.data(), 1, 2}).ok());
  const std::vector<float> features = {1, 0, 0, 1};
  const std::vector<int32_t> labels = {10, 3};
  const std::vector<float> thresholds = {-2, -2};
  std::vector<ShardPartial> partials(2);
  const absl::Status status =
      (*engine)->Score({.features = {features.data(), 2, 2}, .labels = labels}, {30, 36, 6}, thresholds, partials);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(partials[0].sum_exp, 0);
  EXPECT_EQ(partials[0].max_logit, -std::numeric_limits<float>::infinity());
  EXPECT_EQ(partials[0].support_vectors, 0);
  EXPECT_NEAR(partials[1].sum_exp, 1, 1e-5);
  EXPECT_EQ(partials[1].support_vectors, 1);
}

INSTANTIATE_TEST_SUITE_P(Engines, EngineRows, testing::Values(EngineKind::kReference, EngineKind::kCpu),
                         [](const auto& info) { return info.param == EngineKind::kCpu ? "Cpu" : "Reference"; });

TEST(ReferenceEngine, RefusesAPrecisionThatItHasNot) {
  const auto engine =
      EngineOfKind(EngineKind::kReference, {.shard = {0, 2}, .dim = 2, .precision = Precision::kBfloat16});
  EXPECT_EQ(engine.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(engine.status()), testing::HasSubstr("float64 only: use precision FLOAT32"));
}

}  // namespace
}  // namespace shardmax
