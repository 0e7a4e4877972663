// Sampled heads against a dense head that gives the classes left out no gradient, and against other numbers of ranks.
#include <gmock/gmock.h>

#include <cmath>
#include <numeric>
#include <set>

#include "tests/head/failing_engine.h"
#include "tests/support/compare.h"
#include "tests/support/head_run.h"
#include "tests/support/loss_cases.h"
#include "tests/support/spawn_ranks.h"

namespace shardmax {
namespace {

constexpr int64_t kDim = 12, kClasses = 101;

std::vector<HeadProblem> Batches(int count) {
  std::vector<HeadProblem> batches;
  for (int i = 0; i < count; ++i) {
    batches.push_back(MakeHeadProblem(70 + static_cast<uint32_t>(i), i % 2 == 0 ? 9 : 6, kDim, kClasses));
    batches.back().labels[2] = -1;
  }
  return batches;
}

// The classes of a step with nearest sampling, by its definition: `graph` [C][k] of global ids.
std::vector<int64_t> NearestActiveOf(const HeadProblem& batch, const HeadRunOptions& options, int64_t step,
                                     const std::vector<std::vector<int64_t>>& graph) {
  std::set<int64_t> labels(batch.labels.begin(), batch.labels.end());
  labels.erase(-1);
  std::set<int64_t> active = labels;
  const double room = options.sample_rate * static_cast<double>(batch.classes - static_cast<int64_t>(labels.size()));
  const auto others = [&] { return static_cast<double>(active.size() - labels.size()); };
  for (size_t place = 0; place < graph[0].size(); ++place) {
    for (const int64_t label : labels) {
      if (others() + 1 <= room) active.insert(graph[static_cast<size_t>(label)][place]);
    }
  }
  const double chance = (room - others()) / static_cast<double>(batch.classes - static_cast<int64_t>(active.size()));
  const StepSampling rest = {.rate = chance, .seed = options.sample_seed, .step = step};
  for (int64_t k = 0; k < batch.classes; ++k) {
    if (chance > 0 && IsDrawn(rest, k)) active.insert(k);
  }
  return {active.begin(), active.end()};
}

std::vector<std::vector<int64_t>> GraphOf(const std::vector<double>& weights, int64_t neighbours) {
  const auto classes = static_cast<int64_t>(weights.size()) / kDim;
  const auto dot = [&](int64_t a, int64_t b) {
    return std::inner_product(&weights[a * kDim], &weights[a * kDim] + kDim, &weights[b * kDim], 0.0);
  };
  std::vector<std::vector<int64_t>> graph;
  for (int64_t k = 0; k < classes; ++k) {
    std::vector<std::pair<double, int64_t>> others;
    for (int64_t j = 0; j < classes; ++j) {
      if (j != k) others.emplace_back(-dot(k, j) / std::sqrt(dot(k, k) * dot(j, j)), j);
    }
    std::ranges::sort(others);
    std::vector<int64_t>& nearest = graph.emplace_back();
    for (int64_t i = 0; i < neighbours; ++i) nearest.push_back(others[static_cast<size_t>(i)].second);
  }
  return graph;
}

std::vector<int64_t> ActiveOf(const HeadProblem& batch, const HeadRunOptions& options, int64_t step) {
  const StepSampling sampling = {.rate = options.sample_rate, .seed = options.sample_seed, .step = step};
  const std::set<int64_t> labels(batch.labels.begin(), batch.labels.end());
  std::vector<int64_t> active;
  for (int64_t k = 0; k < batch.classes; ++k) {
    if (labels.contains(k) || IsDrawn(sampling, k)) active.push_back(k);
  }
  return active;
}

// The whole head in float64 by definition: a plain softmax loss with margin and support vectors over the active
// classes, differentiated numerically, then torch.optim.SGD on every class, with a gradient of zero where it was not
// active.
struct DenseHead {
  std::vector<double> weights, momentum;
  double loss = 0;
  std::vector<std::vector<int64_t>> graph;

  void Step(const HeadProblem& batch, const HeadRunOptions& options, int64_t step) {
    const bool nearest = options.neighbours > 0;
    if (nearest && step % options.rebuild_every == 0) graph = GraphOf(weights, options.neighbours);
    const std::vector<int64_t> active =
        nearest ? NearestActiveOf(batch, options, step, graph) : ActiveOf(batch, options, step);
    DenseProblem problem = batch.Dense();
    problem.classes = static_cast<int64_t>(active.size());
    problem.weights.clear();
    for (const int64_t k : active) {
      problem.weights.insert(problem.weights.end(), weights.begin() + k * kDim, weights.begin() + (k + 1) * kDim);
    }
    for (int32_t& label : problem.labels) {
      if (label < 0) continue;
      label = static_cast<int32_t>(std::lower_bound(active.begin(), active.end(), label) - active.begin());
    }
    const DenseLossSpec spec = DenseSpecOf(options.loss);
    loss = DenseLoss(spec, problem).loss;
    const DenseGradients gradients = DenseFiniteDifferences(spec, problem);
    ASSERT_FALSE(gradients.crossed) << "choose other seeds";
    std::vector<double> all(weights.size());
    for (size_t i = 0; i < active.size(); ++i) {
      std::copy_n(gradients.weights.begin() + static_cast<int64_t>(i) * kDim, kDim, all.begin() + active[i] * kDim);
    }
    const double lr = RateOf(options, step);
    for (size_t i = 0; i < weights.size(); ++i) {
      momentum[i] = options.optimizer.momentum * momentum[i] + all[i] + options.optimizer.weight_decay * weights[i];
      weights[i] -= lr * momentum[i];
    }
  }
};

class Sampling : public testing::TestWithParam<EngineKind> {
 protected:
  HeadRunOptions options_ = {.engine = GetParam(),
                             .optimizer = {.weight_decay = 0.05, .momentum = 0.9},
                             .lr = 0.3,
                             .sample_rate = 0.2,
                             .loss = {.m3 = 0.35, .t = 1.2}};
};

TEST_P(Sampling, IsADenseHeadWithoutGradientsOfTheClassesLeftOut) {
  for (const double momentum : {0.9, 0.0}) {
    options_.optimizer.momentum = momentum;
    const std::vector<HeadProblem> batches = Batches(6);
    DenseHead dense = {.weights = {batches[0].weights.begin(), batches[0].weights.end()},
                       .momentum = std::vector<double>(batches[0].weights.size())};
    const HeadOutcome outcome = RunHead(batches, options_);
    for (size_t step = 0; step < batches.size(); ++step) {
      dense.Step(batches[step], options_, static_cast<int64_t>(step));
      EXPECT_NEAR(outcome.steps[step].loss, dense.loss, 1e-5 * dense.loss) << "step " << step;
    }
    EXPECT_TRUE(MatricesAgree(outcome.tensors.at("weight"), dense.weights, kDim, {2e-5}));
    if (momentum != 0) {
      EXPECT_TRUE(MatricesAgree(outcome.tensors.at("momentum"), dense.momentum, kDim, {2e-5}));
    }
  }
}

TEST_P(Sampling, OfNeighboursIsADenseHeadToo) {
  for (const double rate : {0.1, 0.6}) {  // With less room than the neighbours want, and with more.
    options_.sample_rate = rate;
    options_.neighbours = 6;
    options_.ranks = 3;
    const std::vector<HeadProblem> batches = Batches(5);
    DenseHead dense = {.weights = {batches[0].weights.begin(), batches[0].weights.end()},
                       .momentum = std::vector<double>(batches[0].weights.size())};
    const HeadOutcome outcome = RunHead(batches, options_);
    for (size_t step = 0; step < batches.size(); ++step) {
      dense.Step(batches[step], options_, static_cast<int64_t>(step));
      EXPECT_NEAR(outcome.steps[step].loss, dense.loss, 1e-5 * dense.loss) << "step " << step;
    }
    EXPECT_TRUE(MatricesAgree(outcome.tensors.at("weight"), dense.weights, kDim, {2e-5}));
  }
}

TEST_P(Sampling, DoesNotDependOnTheNumberOfRanksAndThreads) {
  const std::vector<HeadProblem> batches = Batches(5);
  for (const CosineStorage cosines : {CosineStorage::kRecompute, CosineStorage::kKeepFloat32}) {
    options_.cosines = cosines;
    options_.neighbours = cosines == CosineStorage::kRecompute ? 0 : 5;
    options_.ranks = 1;
    options_.threads = 1;
    const HeadOutcome alone = RunHead(batches, options_);
    for (const int ranks : {2, 3, 8}) {
      options_.ranks = ranks;
      options_.threads = 2;
      options_.tile_classes = 5;
      const HeadOutcome outcome = RunHead(batches, options_);
      for (size_t i = 0; i < batches.size(); ++i) {
        EXPECT_NEAR(outcome.steps[i].loss, alone.steps[i].loss, 1e-5 * alone.steps[i].loss) << ranks << " ranks";
        EXPECT_EQ(outcome.steps[i].support_vector_ratio, alone.steps[i].support_vector_ratio) << ranks << " ranks";
      }
      EXPECT_TRUE(MatricesAgree(outcome.feature_gradients, alone.feature_gradients, kDim, {1e-5})) << ranks;
      for (const auto& [name, tensor] : alone.tensors) {
        EXPECT_TRUE(MatricesAgree(outcome.tensors.at(name), tensor, kDim, {1e-5})) << name << ", " << ranks << " ranks";
      }
    }
  }
}

TEST_P(Sampling, AgreesWithTheReferenceInBfloat16State) {
  options_.optimizer.state_type = StateType::kBfloat16;
  const std::vector<HeadProblem> batches = Batches(3);
  const HeadOutcome one = RunHead(batches, options_);
  options_.engine = EngineKind::kReference;
  const HeadOutcome reference = RunHead(batches, options_);
  EXPECT_TRUE(MatricesAgree(one.tensors.at("weight"), reference.tensors.at("weight"), kDim, {1e-2}));
}

TEST_P(Sampling, MayLeaveARankWithoutAnActiveClass) {
  HeadProblem problem = MakeHeadProblem(90, 4, kDim, 8);
  problem.labels = {1, 1, 1, 1};
  options_.sample_rate = 1e-9;
  options_.ranks = 4;
  const HeadOutcome outcome = RunHead({problem, problem}, options_);
  EXPECT_EQ(outcome.steps[1].loss, 0) << "the label is the only class";
  EXPECT_EQ(outcome.steps[1].support_vector_ratio, 0);
}

INSTANTIATE_TEST_SUITE_P(Engines, Sampling, testing::Values(EngineKind::kReference, EngineKind::kCpu),
                         [](const auto& info) { return info.param == EngineKind::kCpu ? "Cpu" : "Reference"; });

TEST(ActiveClasses, AreTheLabelsAndAboutSoManyOthersAlikeForAnyShards) {
  constexpr int64_t kMany = 200'000;
  const std::vector<int32_t> labels = {199'999, 5, -1, 5, 77'777};
  StepSampling sampling = {.rate = 0.1, .seed = 3, .step = 17};
  ActiveClasses whole;
  whole.Choose(sampling, {0, kMany}, labels);
  std::vector<int32_t> joined;
  for (int rank = 0; rank < 7; ++rank) {
    const Range shard = BalancedPart(kMany, rank, 7);
    ActiveClasses part;
    part.Choose(sampling, shard, labels);
    for (const int32_t k : part.local()) joined.push_back(static_cast<int32_t>(shard.first) + k);
  }
  EXPECT_EQ(joined, std::vector<int32_t>(whole.local().begin(), whole.local().end()));
  for (const int32_t label : {5, 77'777, 199'999}) {
    EXPECT_TRUE(std::binary_search(joined.begin(), joined.end(), label)) << label;
  }
  // Five deviations of a binomial number.
  EXPECT_NEAR(static_cast<double>(joined.size()), 0.1 * kMany, 5 * std::sqrt(0.1 * 0.9 * kMany));
  sampling.step = 18;
  whole.Choose(sampling, {0, kMany}, labels);
  std::vector<int32_t> common;
  std::set_intersection(joined.begin(), joined.end(), whole.local().begin(), whole.local().end(),
                        std::back_inserter(common));
  EXPECT_NEAR(static_cast<double>(common.size()), 0.01 * kMany, 5 * std::sqrt(0.01 * kMany)) << "steps draw anew";
}

}  // namespace
}  // namespace shardmax
