#include "tests/support/head_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>
#include <random>

#include "tests/support/loss_cases.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/head/neighbour_scan.h"

namespace shardmax {
namespace {

// std::normal_distribution may differ between libraries; this does not.
class Normal {
 public:
  explicit Normal(uint64_t seed) : bits_(seed) {}

  double Uniform() { return static_cast<double>(bits_() >> 11U) * 0x1p-53; }
  double operator()() { return std::sqrt(-2 * std::log(1 - Uniform())) * std::cos(6.283185307179586 * Uniform()); }

 private:
  std::mt19937_64 bits_;
};

void DrawRow(Normal& normal, HeadProblem& problem, int64_t b) {
  const int64_t dim = problem.dim;
  const double towards_label = 5 * normal.Uniform() - 2.5;
  const double length = std::exp(normal());
  const double noise = 1 / std::sqrt(static_cast<double>(dim));
  const float* w = &problem.weights[problem.labels[b] * dim];
  for (int64_t i = 0; i < dim; ++i) {
    problem.features[b * dim + i] = static_cast<float>(length * (towards_label * w[i] + noise * normal()));
  }
}

DenseProblem OneRow(const HeadProblem& problem, int64_t b) {
  DenseProblem dense = problem.Dense();
  dense.rows = 1;
  dense.features.assign(problem.features.begin() + b * problem.dim, problem.features.begin() + (b + 1) * problem.dim);
  dense.labels = {problem.labels[b]};
  return dense;
}

// Copies `from` to the rows of a larger matrix that begin at `row`.
void Place(std::span<const float> from, int64_t row, int64_t dim, std::vector<float>& to) {
  std::copy(from.begin(), from.end(), to.begin() + row * dim);
}

absl::Status CopyTensors(const Engine& engine, HeadOutcome& outcome) {
  std::vector<std::string> names = engine.options().optimizer.StateNames();
  names.push_back("weight");
  const Range shard = engine.options().shard;
  const int64_t dim = engine.options().dim;
  for (const std::string& name : names) {
    std::vector<float> rows(shard.count * dim);
    SHARDMAX_RETURN_IF_ERROR(engine.ReadRows(name, shard, {rows.data(), shard.count, dim}));
    Place(rows, shard.first, dim, outcome.tensors.at(name));
  }
  return absl::OkStatus();
}

void ExpectSameOnEveryRank(const StepResult& mine, const StepResult& first) {
  EXPECT_EQ(mine.loss, first.loss);
  EXPECT_EQ(mine.label_cosine, first.label_cosine);
  EXPECT_EQ(mine.support_vector_ratio, first.support_vector_ratio);
  EXPECT_EQ(mine.support_vector_recall, first.support_vector_recall);
  EXPECT_EQ(mine.counted_rows, first.counted_rows);
  EXPECT_EQ(mine.requests, first.requests);
}

// The sampling of a step, with a new graph where it is due.
absl::StatusOr<StepSampling> SamplingOf(const HeadRunOptions& options, int64_t step, SkippedSteps& skipped,
                                        ShardedHead& head, Communicator& comm, Engine& engine, NeighbourGraph& graph) {
  if (options.neighbours > 0 && step % options.rebuild_every == 0) {
    skipped.MoveTo(step);
    SHARDMAX_RETURN_IF_ERROR(head.CatchUpAll(skipped));
    SHARDMAX_RETURN_IF_ERROR(BuildNeighbourGraph(comm, engine, graph));
  }
  return StepSampling{.rate = options.sample_rate,
                      .seed = options.sample_seed,
                      .step = step,
                      .skipped = &skipped,
                      .neighbours = options.neighbours > 0 ? &graph : nullptr,
                      .measure_recall = options.measure_recall};
}

}  // namespace

double RateOf(const HeadRunOptions& options, int64_t step) {
  return options.lr / static_cast<double>(1 + step);
}

DenseProblem HeadProblem::Dense() const {
  return {.rows = rows,
          .dim = dim,
          .classes = classes,
          .features = {features.begin(), features.end()},
          .weights = {weights.begin(), weights.end()},
          .labels = labels};
}

std::string HeadProblem::Describe() const {
  return fmt::format("seed {}, B {}, D {}, C {}", seed, rows, dim, classes);
}

HeadProblem MakeHeadProblem(uint32_t seed, int64_t rows, int64_t dim, int64_t classes) {
  HeadProblem problem = {.seed = seed, .rows = rows, .dim = dim, .classes = classes};
  Normal normal(seed);
  problem.weights.resize(classes * dim);
  for (float& w : problem.weights) w = static_cast<float>(normal() / std::sqrt(static_cast<double>(dim)));
  problem.features.resize(rows * dim);
  for (int64_t b = 0; b < rows; ++b) {
    problem.labels.push_back(static_cast<int32_t>(normal.Uniform() * static_cast<double>(classes)));
    DrawRow(normal, problem, b);
  }
  return problem;
}

void AvoidThresholds(const LossParams& loss, double margin, HeadProblem& problem) {
  Normal normal(problem.seed + 1'000'000);
  for (int64_t b = 0; b < problem.rows; ++b) {
    while (DenseLoss(DenseSpecOf(loss), OneRow(problem, b)).mask_margin < margin) DrawRow(normal, problem, b);
  }
}

absl::StatusOr<std::unique_ptr<Engine>> EngineOfKind(EngineKind kind, const EngineOptions& options) {
  SHARDMAX_ASSIGN_OR_RETURN(EngineChoice choice, MakeEngine(kind, options));
  return std::move(choice.engine);
}

StepInput InputOfRank(const HeadProblem& problem, int rank, int ranks, const HeadRunOptions& options, int64_t step) {
  const Range rows = BalancedPart(problem.rows, rank, ranks);
  return {.global_rows = problem.rows,
          .features =
              MatrixView<const float>{problem.features.data(), problem.rows, problem.dim}.slice(rows.first, rows.count),
          .labels = std::span(problem.labels).subspan(rows.first, rows.count),
          .want_feature_gradients = options.want_feature_gradients,
          .loss = options.loss,
          .rule = UpdateRule::At(options.optimizer, options.lr, step)};
}

StepInput UnevenInput(const HeadProblem& problem, int rank, const std::vector<int64_t>& rank_rows,
                      const HeadRunOptions& options) {
  const int64_t first = std::accumulate(rank_rows.begin(), rank_rows.begin() + rank, int64_t{0});
  const auto count = rank_rows[static_cast<size_t>(rank)];
  StepInput input = InputOfRank(problem, 0, 1, options);
  input.features = input.features.slice(first, count);
  input.labels = input.labels.subspan(static_cast<size_t>(first), static_cast<size_t>(count));
  input.rank_rows = rank_rows;
  return input;
}

absl::StatusOr<std::unique_ptr<Engine>> EngineOfRank(const HeadProblem& problem, int rank, int ranks,
                                                     const HeadRunOptions& options) {
  SHARDMAX_ASSIGN_OR_RETURN(const Range shard, ShardOfRank(problem.classes, rank, ranks));
  const EngineOptions of_rank = {.shard = shard,
                                 .dim = problem.dim,
                                 .optimizer = options.optimizer,
                                 .precision = options.precision,
                                 .threads = options.threads,
                                 .cosines = options.cosines,
                                 .sample_rate = options.sample_rate,
                                 .tile_classes = options.tile_classes,
                                 .ranks = ranks};
  SHARDMAX_ASSIGN_OR_RETURN(auto engine,
                            options.factory ? options.factory(of_rank, rank) : EngineOfKind(options.engine, of_rank));
  const MatrixView<const float> weights = {problem.weights.data(), problem.classes, problem.dim};
  SHARDMAX_RETURN_IF_ERROR(engine->WriteRows("weight", shard, weights.slice(shard.first, shard.count)));
  return engine;
}

HeadOutcome RunHead(const std::vector<HeadProblem>& batches, const HeadRunOptions& options) {
  const HeadProblem& first = batches.front();
  HeadOutcome outcome;
  outcome.stats.resize(options.ranks);
  for (const std::string& name : options.optimizer.StateNames()) outcome.tensors[name].resize(first.weights.size());
  outcome.tensors["weight"].resize(first.weights.size());
  outcome.feature_gradients.resize(batches.back().features.size());
  std::vector<std::vector<StepResult>> results(options.ranks);
  std::mutex mutex;
  SpawnRanks(options.ranks, [&](Communicator& bootstrap) -> absl::Status {
    const int rank = bootstrap.rank();
    std::unique_ptr<Communicator> connected;
    if (options.connect) {
      SHARDMAX_ASSIGN_OR_RETURN(connected, options.connect(bootstrap));
    }
    Communicator& comm = connected != nullptr ? *connected : bootstrap;
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(first, rank, options.ranks, options));
    ShardedHead head(comm, *engine, first.classes);
    StepResult result;
    SkippedSteps skipped(options.optimizer, [&](int64_t step) { return RateOf(options, step); });
    NeighbourGraph graph;
    if (options.neighbours > 0) {
      SHARDMAX_ASSIGN_OR_RETURN(graph,
                                NeighbourGraph::Allocate(engine->options().shard, first.classes, options.neighbours));
    }
    for (size_t i = 0; i < batches.size(); ++i) {
      const auto step = static_cast<int64_t>(i);
      StepInput input = InputOfRank(batches[i], rank, options.ranks, options, step);
      if (options.sample_rate < 1) {
        input.rule = UpdateRule::At(options.optimizer, RateOf(options, step), step);
        SHARDMAX_ASSIGN_OR_RETURN(input.sampling, SamplingOf(options, step, skipped, head, comm, *engine, graph));
      }
      const bool ahead = options.gather_ahead && i + 1 < batches.size();
      const auto next = [&] { return InputOfRank(batches[i + 1], rank, options.ranks, options); };
      SHARDMAX_ASSIGN_OR_RETURN(result, ahead ? head.Step(input, next) : head.Step(input));
      results[rank].push_back(result);
    }
    skipped.MoveTo(static_cast<int64_t>(batches.size()));
    if (options.sample_rate < 1) SHARDMAX_RETURN_IF_ERROR(head.CatchUpAll(skipped));
    std::lock_guard<std::mutex> lock(mutex);
    outcome.stats[rank] = comm.stats();
    const MatrixView<const float> mine = result.feature_gradients;
    const int64_t row = BalancedPart(batches.back().rows, rank, options.ranks).first;
    if (mine.data != nullptr) Place(mine.flat(), row, first.dim, outcome.feature_gradients);
    return CopyTensors(*engine, outcome);
  });
  for (const auto& of_rank : results) {
    for (size_t i = 0; i < of_rank.size(); ++i) ExpectSameOnEveryRank(of_rank[i], results[0][i]);
  }
  for (StepResult& result : results[0]) result.feature_gradients = {};
  outcome.steps = std::move(results[0]);
  if (outcome.steps.empty()) outcome.steps.emplace_back();  // The failure was reported; loss() stays callable.
  return outcome;
}

HeadOutcome RunHead(const HeadProblem& problem, const HeadRunOptions& options) {
  return RunHead(std::vector<HeadProblem>{problem}, options);
}

}  // namespace shardmax
