// Small training problems, and running them through the sharded head on any number of ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/support/dense_loss.h"
#include "worker/comm/communicator.h"
#include "worker/engine/make_engine.h"
#include "worker/head/sharded_head.h"
#include "worker/loss/loss_params.h"
#include "worker/optim/update_rule.h"

namespace shardmax {

// One global batch and the weights before the first step.
struct HeadProblem {
  uint32_t seed = 0;
  int64_t rows = 0, dim = 0, classes = 0;  // B, D, C
  std::vector<float> features;             // [B, D]
  std::vector<int32_t> labels;             // [B]
  std::vector<float> weights;              // [C, D]

  DenseProblem Dense() const;
  // "seed 7, B 33, D 17, C 97".
  std::string Describe() const;
};

// Normal weights of length about 1; features of varied lengths at varied angles to the weight of their label, so that
// both sides of every branch of the loss are met. Labels are drawn from all classes. A pure function of its arguments.
HeadProblem MakeHeadProblem(uint32_t seed, int64_t rows, int64_t dim, int64_t classes);

// Draws rows anew until none has a class within `margin` of its threshold under `loss`, where rounding may decide
// whether it is a support vector.
void AvoidThresholds(const LossParams& loss, double margin, HeadProblem& problem);

// As MakeEngine().
absl::StatusOr<std::unique_ptr<Engine>> EngineOfKind(EngineKind kind, const EngineOptions& options);

// Makes the engine of a rank.
using EngineFactory = std::function<absl::StatusOr<std::unique_ptr<Engine>>(const EngineOptions& options, int rank)>;

// Makes the communicator of a rank from the one that connects the threads. Collective.
using CommFactory = std::function<absl::StatusOr<std::unique_ptr<Communicator>>(Communicator& bootstrap)>;

struct HeadRunOptions {
  EngineKind engine = EngineKind::kReference;
  EngineFactory factory;  // If it is not empty, of another kind than those.
  CommFactory connect;    // If it is not empty, what the head exchanges by.
  int ranks = 1;
  int threads = 1;
  Precision precision = Precision::kFloat32;
  CosineStorage cosines = CosineStorage::kRecompute;
  int64_t tile_classes = 0;
  // With weight decay 0, "momentum" after the first step is the gradient of the weights.
  OptimizerParams optimizer = {.momentum = 0.9};
  double lr = 0.1;
  double sample_rate = 1;  // Below 1: sampled by `sample_seed`; tensors are those after catching up.
  uint32_t sample_seed = 1;
  int64_t neighbours = 0;     // Above 0, of a sampled head: nearest sampling.
  int64_t rebuild_every = 2;  // Steps from one graph to the next, the first before step 0.
  bool measure_recall = false;
  LossParams loss;
  bool want_feature_gradients = true;
  bool gather_ahead = false;  // The head is told how to come by the rows of the next step.
};

// The learning rate of a step of a sampled head: another in each, lr / (1 + step).
double RateOf(const HeadRunOptions& options, int64_t step);

struct HeadOutcome {
  std::vector<StepResult> steps;                      // Of rank 0, without its view of the gradients.
  std::vector<float> feature_gradients;               // [B, D] of the last batch
  std::map<std::string, std::vector<float>> tensors;  // "weight", "momentum", …: [C, D] after the last step
  std::vector<CommStats> stats;                       // By rank.

  double loss() const { return steps.back().loss; }
};

// Trains on `batches` in order, each with its own number of rows (their weights but for the first's are not used).
// A failed step fails the test. Every rank must report the same result.
HeadOutcome RunHead(const std::vector<HeadProblem>& batches, const HeadRunOptions& options);
HeadOutcome RunHead(const HeadProblem& problem, const HeadRunOptions& options);

// What `rank` of `ranks` brings of `problem`: views of it.
StepInput InputOfRank(const HeadProblem& problem, int rank, int ranks, const HeadRunOptions& options, int64_t step = 0);

// What `rank` brings of `problem` if ranks bring `rank_rows`, which must outlive it.
StepInput UnevenInput(const HeadProblem& problem, int rank, const std::vector<int64_t>& rank_rows,
                      const HeadRunOptions& options);

// The engine of `rank`, with its shard of `problem.weights`.
absl::StatusOr<std::unique_ptr<Engine>> EngineOfRank(const HeadProblem& problem, int rank, int ranks,
                                                     const HeadRunOptions& options);

}  // namespace shardmax
