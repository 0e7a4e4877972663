// The CPU engine against the reference engine.
#include <gmock/gmock.h>

#include "tests/support/compare.h"
#include "tests/support/head_run.h"
#include "tests/support/loss_cases.h"

namespace shardmax {
namespace {

constexpr double kBound = 1e-5;

struct Shape {
  int64_t rows, dim, classes;
};

// Sizes around vectors, tiles and the alignment of columns; 1500 classes are several tiles. D = 1 has a test of its
// own: there all gradients cancel.
const std::vector<int64_t> kRows = {1, 2, 7, 33, 256};
const std::vector<int64_t> kDims = {3, 17, 64, 130};
const std::vector<int64_t> kClasses = {2, 5, 97, 1000, 1500};

HeadProblem ProblemOf(const LossParams& loss, const Shape& shape, uint32_t seed) {
  HeadProblem problem = MakeHeadProblem(seed, shape.rows, shape.dim, shape.classes);
  if (loss.t != 1) AvoidThresholds(loss, 1e-6, problem);
  if (shape.rows > 2) problem.labels[shape.rows / 3] = -1;
  return problem;
}

void ExpectAgreement(const std::vector<HeadProblem>& batches, HeadRunOptions options, const HeadOutcome& expected,
                     double bound) {
  const int64_t dim = batches.back().dim;
  SCOPED_TRACE(batches.back().Describe());
  options.engine = EngineKind::kCpu;
  for (const int threads : {1, 2, 3}) {
    SCOPED_TRACE(testing::Message() << threads << " threads");
    options.threads = threads;
    const HeadOutcome outcome = RunHead(batches, options);
    for (size_t i = 0; i < batches.size(); ++i) {
      EXPECT_NEAR(outcome.steps[i].loss, expected.steps[i].loss, bound * expected.steps[i].loss) << "step " << i;
    }
    EXPECT_TRUE(MatricesAgree(outcome.feature_gradients, expected.feature_gradients, dim, {bound})) << "features";
    for (const auto& [name, tensor] : expected.tensors) {
      EXPECT_TRUE(MatricesAgree(outcome.tensors.at(name), tensor, dim, {bound})) << name;
    }
  }
}

void ExpectAgreement(const std::vector<HeadProblem>& batches, const HeadRunOptions& options) {
  ExpectAgreement(batches, options, RunHead(batches, options), kBound);
}

class Agreement : public testing::TestWithParam<LossCase> {};

TEST_P(Agreement, OnShapesThatAreMultiplesOfNothing) {
  const LossParams& loss = GetParam().params;
  const std::vector<Shape> shapes = {{1, 3, 5}, {7, 17, 97}, {33, 130, 1000}, {33, 3, 1500}, {2, 64, 2}};
  for (const Shape& shape : shapes) ExpectAgreement({ProblemOf(loss, shape, 1)}, {.loss = loss});
}

TEST_P(Agreement, OverStepsWithBatchesOfChangingSize) {
  const LossParams& loss = GetParam().params;
  std::vector<HeadProblem> batches;
  for (const int64_t rows : {33, 33, 5, 18, 1}) {
    batches.push_back(ProblemOf(loss, {rows, 20, 97}, static_cast<uint32_t>(batches.size() + 1)));
  }
  ExpectAgreement(batches, {.lr = 0.01, .loss = loss});
}

INSTANTIATE_TEST_SUITE_P(Losses, Agreement, testing::ValuesIn(AllLossCases()),
                         [](const auto& info) { return info.param.name; });

// What is rounded at random is so by a counter: the same values, but where rounding before crosses the draw.
TEST(CpuEngine, RoundsStateAsTheReferenceDoes) {
  HeadRunOptions options = {.threads = 2, .loss = {.m3 = 0.35, .t = 1.2}};
  options.optimizer = {.momentum = 0.9, .state_type = StateType::kBfloat16, .noise_seed = 5};
  const HeadProblem problem = ProblemOf(options.loss, {33, 64, 1000}, 8);
  const std::vector<float> expected = RunHead(problem, options).tensors.at("momentum");
  options.engine = EngineKind::kCpu;
  const std::vector<float> momentum = RunHead(problem, options).tensors.at("momentum");
  int64_t different = 0;
  float largest = 0;
  for (const float value : expected) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(momentum[i], expected[i], std::abs(expected[i]) / 64 + 1e-6F * largest) << i;
    different += momentum[i] != expected[i] ? 1 : 0;
  }
  EXPECT_LE(different, static_cast<int64_t>(expected.size()) / 100);
  options.optimizer.noise_seed = 6;
  EXPECT_NE(RunHead(problem, options).tensors.at("momentum"), momentum) << "the seed has no effect";
}

TEST(CpuEngine, AgreesOnEveryPairOfSizes) {
  const LossParams loss = {.m2 = 0.5, .m3 = 0.1, .t = 1.2};
  for (size_t r = 0; r < kRows.size(); ++r) {
    for (size_t c = 0; c < kClasses.size(); ++c) {
      ExpectAgreement({ProblemOf(loss, {kRows[r], kDims[(r + c) % kDims.size()], kClasses[c]}, 7)}, {.loss = loss});
    }
  }
}

TEST(CpuEngine, AgreesWithEveryOptimizer) {
  const LossParams loss = {.m3 = 0.35, .t = 1.2};
  const std::vector<HeadProblem> batches = {ProblemOf(loss, {33, 17, 97}, 1), ProblemOf(loss, {33, 17, 97}, 2),
                                            ProblemOf(loss, {20, 17, 97}, 3)};
  for (const OptimizerParams& optimizer : std::vector<OptimizerParams>{
           {},
           {.weight_decay = 0.1},
           {.weight_decay = 5e-4, .momentum = 0.9},
           {.weight_decay = 0.1, .momentum = 0.9, .nesterov = true},
           {.kind = OptimizerKind::kAdamW, .weight_decay = 0.01, .eps = 1e-3},
       }) {
    ExpectAgreement(batches, {.optimizer = optimizer, .lr = 0.01, .loss = loss});
  }
}

TEST(CpuEngine, HandlesFewerClassesThanThreads) {
  for (const LossParams& loss : {LossParams{.scale = 30, .t = 1.2}, LossParams{.scale = 23.7, .m2 = 0.5, .t = 1.7}}) {
    for (const int64_t classes : {2, 3, 4}) {
      ExpectAgreement({ProblemOf(loss, {33, 5, classes}, 3)}, {.loss = loss});
    }
  }
}

TEST(CpuEngine, AgreesWithOneDimension) {
  // All cosines are 1 or -1 and every gradient cancels, so what is left is rounding of terms of size s.
  for (const LossCase& c : PresetCases()) {
    // Slopes at the ends are large there, and rounding decides whether an equal cosine is a support vector: see
    // tests/head/edges_test.cc.
    if (c.params.m1 != 1 || c.params.m2 != 0 || c.name == "SvSoftmax") continue;
    SCOPED_TRACE(c.name);
    const HeadProblem problem = MakeHeadProblem(5, 33, 1, 97);
    const HeadOutcome expected = RunHead(problem, {.loss = c.params});
    const HeadOutcome outcome = RunHead(problem, {.engine = EngineKind::kCpu, .threads = 2, .loss = c.params});
    EXPECT_NEAR(outcome.loss(), expected.loss(), kBound * expected.loss());
    const double smallest_norm = std::abs(*std::min_element(
        problem.weights.begin(), problem.weights.end(), [](float a, float b) { return std::abs(a) < std::abs(b); }));
    EXPECT_TRUE(MatricesAgree(outcome.tensors.at("momentum"), expected.tensors.at("momentum"), 1,
                              {kBound, c.params.scale / smallest_norm}));
    EXPECT_TRUE(MatricesAgree(outcome.feature_gradients, expected.feature_gradients, 1, {kBound, c.params.scale}));
  }
}

// Rows with more classes than one tile; the last one is not whole.
HeadProblem SeveralTiles(const LossParams& loss) {
  return ProblemOf(loss, {33, 64, 1500}, 4);
}

TEST(CpuEngine, KeepsCosinesInFloat32WithoutAnyChange) {
  for (const LossCase& c : PresetCases()) {
    SCOPED_TRACE(c.name);
    const std::vector<HeadProblem> batches = {SeveralTiles(c.params), ProblemOf(c.params, {20, 64, 1500}, 5)};
    for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16}) {
      HeadRunOptions options = {.engine = EngineKind::kCpu, .threads = 2, .precision = precision, .loss = c.params};
      const HeadOutcome recomputed = RunHead(batches, options);
      options.cosines = CosineStorage::kKeepFloat32;
      const HeadOutcome kept = RunHead(batches, options);
      EXPECT_EQ(kept.tensors, recomputed.tensors);
      EXPECT_EQ(kept.feature_gradients, recomputed.feature_gradients);
    }
  }
}

TEST(CpuEngine, KeepsCosinesInInt16NearTheReference) {
  for (const LossCase& c : PresetCases()) {
    SCOPED_TRACE(c.name);
    HeadRunOptions options = {.threads = 2, .loss = c.params};
    const HeadProblem problem = SeveralTiles(c.params);
    const HeadOutcome expected = RunHead(problem, options);
    options.cosines = CosineStorage::kKeepInt16;
    // Half a step of 1/32767 in a cosine, or one beside a threshold, times s = 32: up to 1e-3 of one probability.
    ExpectAgreement({problem}, options, expected, 1e-3);
  }
}

TEST(CpuEngine, AgreesWithTilesOfAnySize) {
  const LossParams loss = {.m2 = 0.5, .t = 1.2};
  const HeadProblem problem = SeveralTiles(loss);
  const HeadOutcome expected = RunHead(problem, {.loss = loss});
  for (const int64_t tile_classes : {1, 63, 64, 192, 1500, 4000}) {
    SCOPED_TRACE(tile_classes);
    ExpectAgreement({problem}, {.tile_classes = tile_classes, .loss = loss}, expected, kBound);
  }
}

TEST(CpuEngine, LeavesOutTheFeatureGradientsWhenAsked) {
  const LossParams loss = {.m2 = 0.5, .t = 1.2};
  const HeadProblem problem = ProblemOf(loss, {33, 17, 1500}, 4);
  HeadRunOptions options = {.engine = EngineKind::kCpu, .threads = 2, .loss = loss};
  const HeadOutcome with = RunHead(problem, options);
  options.want_feature_gradients = false;
  const HeadOutcome without = RunHead(problem, options);
  EXPECT_EQ(with.tensors, without.tensors);
  EXPECT_EQ(with.loss(), without.loss());
}

TEST(CpuEngine, RepeatsARunBitForBit) {
  const LossParams loss = {.m3 = 0.35, .t = 1.2};
  const std::vector<HeadProblem> batches = {MakeHeadProblem(1, 100, 33, 1500), MakeHeadProblem(2, 41, 33, 1500)};
  for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16}) {
    for (const CosineStorage cosines :
         {CosineStorage::kRecompute, CosineStorage::kKeepInt16, CosineStorage::kKeepFloat32}) {
      const HeadRunOptions options = {.engine = EngineKind::kCpu,
                                      .ranks = 2,
                                      .threads = 3,
                                      .precision = precision,
                                      .cosines = cosines,
                                      .loss = loss};
      const HeadOutcome once = RunHead(batches, options);
      const HeadOutcome again = RunHead(batches, options);
      EXPECT_EQ(once.tensors, again.tensors);
      EXPECT_EQ(once.feature_gradients, again.feature_gradients);
      EXPECT_EQ(once.loss(), again.loss());
    }
  }
}

}  // namespace
}  // namespace shardmax
