// A score that begins before its thresholds are known is the same.
#include <gmock/gmock.h>

#include <algorithm>
#include <optional>

#include "tests/support/head_run.h"

namespace shardmax {
namespace {

struct Outcome {
  std::vector<float> sums, gradients, weights;
};

// How a step comes to its score.
enum class Begin { kAtOnce, kPrepared, kPreparedForAnotherBatch };

EngineBatch BatchOf(const HeadProblem& problem, const std::vector<float>& features,
                    const std::optional<std::vector<int32_t>>& active) {
  EngineBatch batch = {.features = {features.data(), problem.rows, problem.dim}, .labels = problem.labels};
  if (active.has_value()) batch.active = *active;
  return batch;
}

std::vector<float> Shortened(const HeadProblem& problem) {
  std::vector<float> features(problem.features);
  for (float& x : features) x /= 8;  // Lengths do not matter here.
  return features;
}

// Two steps, so that the second scores what the first has updated.
Outcome RunEngine(const HeadProblem& problem, const HeadRunOptions& options, bool with_active, Begin begin) {
  const LossParams loss = {.m3 = 0.35, .t = 1.2};
  const auto engine = EngineOfRank(problem, 0, 1, options);
  EXPECT_TRUE(engine.ok()) << engine.status();
  std::optional<std::vector<int32_t>> active;
  if (with_active) {
    active.emplace();
    for (int32_t k = 0; k < problem.classes; ++k) {
      if (k % 3 != 0 || std::ranges::count(problem.labels, k) > 0) active->push_back(k);
    }
  }
  const HeadProblem other = MakeHeadProblem(problem.seed + 1, problem.rows + 3, problem.dim, problem.classes);
  const std::vector<float> features = Shortened(problem), other_features = Shortened(other);
  const EngineBatch batch = BatchOf(problem, features, active);
  Outcome outcome;
  outcome.gradients.resize(features.size());
  std::vector<float> cosines(problem.rows), other_cosines(other.rows);
  std::vector<ShardPartial> partials(problem.rows);
  RowOutcomes rows;
  for (int64_t step = 0; step < 2; ++step) {
    if (begin == Begin::kPreparedForAnotherBatch) {
      const EngineBatch ended_early = BatchOf(other, other_features, std::nullopt);
      (*engine)->LabelCosines(ended_early, other_cosines);
      (*engine)->Prepare(ended_early);
    }
    (*engine)->LabelCosines(batch, cosines);
    if (begin == Begin::kPrepared) (*engine)->Prepare(batch);
    EXPECT_TRUE(rows.SetLabelCosines(loss, batch.labels, cosines).ok());
    EXPECT_TRUE((*engine)->Score(batch, ScaleOf(loss), rows.thresholds(), partials).ok());
    for (const ShardPartial& partial : partials) {
      outcome.sums.push_back(static_cast<float>(partial.sum_exp));
      outcome.sums.push_back(static_cast<float>(partial.support_vectors));
    }
    EXPECT_TRUE(rows.SetPartials(loss, {std::span<const ShardPartial>(partials)}).ok());
    EXPECT_TRUE((*engine)
                    ->Backward(batch, ScaleOf(loss), rows.gradients(), UpdateRule::At(options.optimizer, 0.1, step),
                               {outcome.gradients.data(), problem.rows, problem.dim})
                    .ok());
  }
  outcome.weights.resize(problem.weights.size());
  EXPECT_TRUE(
      (*engine)->ReadRows("weight", {0, problem.classes}, {outcome.weights.data(), problem.classes, problem.dim}).ok());
  return outcome;
}

void ExpectTheSame(const HeadProblem& problem, const HeadRunOptions& options, bool with_active) {
  SCOPED_TRACE(testing::Message() << problem.Describe() << ", " << options.threads << " threads, precision "
                                  << static_cast<int>(options.precision) << ", cosines "
                                  << static_cast<int>(options.cosines) << ", active " << with_active);
  const Outcome expected = RunEngine(problem, options, with_active, Begin::kAtOnce);
  for (const Begin begin : {Begin::kPrepared, Begin::kPreparedForAnotherBatch}) {
    SCOPED_TRACE(static_cast<int>(begin));
    const Outcome outcome = RunEngine(problem, options, with_active, begin);
    EXPECT_EQ(outcome.sums, expected.sums);
    EXPECT_EQ(outcome.gradients, expected.gradients);
    EXPECT_EQ(outcome.weights, expected.weights);
  }
}

TEST(CpuEngine, ScoresTheSameBitsWhereItBeganBeforeThresholdsWereKnown) {
  for (const int64_t classes : {5, 333}) {  // Fewer tiles than threads, and several a thread.
    const HeadProblem problem = MakeHeadProblem(3, 21, 17, classes);
    for (const int threads : {1, 3}) {
      for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16}) {
        for (const CosineStorage cosines :
             {CosineStorage::kRecompute, CosineStorage::kKeepInt16, CosineStorage::kKeepFloat32}) {
          HeadRunOptions options = {.engine = EngineKind::kCpu,
                                    .threads = threads,
                                    .precision = precision,
                                    .cosines = cosines,
                                    .tile_classes = 32};
          ExpectTheSame(problem, options, false);
          options.sample_rate = 0.7;
          ExpectTheSame(problem, options, true);
        }
      }
    }
  }
}

}  // namespace
}  // namespace shardmax
