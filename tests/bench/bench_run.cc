#include "tests/bench/bench_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <fstream>
#include <random>

#include "tests/bench/peaks.h"
#include "worker/base/shard_range.h"
#include "worker/base/status.h"
#include "worker/engine/make_engine.h"
#include "worker/head/neighbour_scan.h"
#include "worker/head/random_weights.h"
#include "worker/spec/job_spec.h"
#include "worker/training_plan.h"

namespace shardmax::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kSeed = 1;
constexpr double kStddev = 0.05;
constexpr float kPulls[] = {0, 0.75F, 1.25F, 2};
constexpr int kWarmUpSteps = 2;
constexpr int kBatches = 4;
constexpr int64_t kCopyBytes = int64_t{32} << 20;

// The value of every rank, in rank order.
template <typename T>
absl::StatusOr<std::vector<T>> Gather(Communicator& comm, const std::vector<T>& mine) {
  std::vector<T> all(mine.size() * static_cast<size_t>(comm.size()));
  SHARDMAX_RETURN_IF_ERROR(comm.AllGather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all))));
  return all;
}

absl::StatusOr<double> SumOverRanks(Communicator& comm, double mine) {
  SHARDMAX_ASSIGN_OR_RETURN(const std::vector<double> all, Gather(comm, std::vector<double>{mine}));
  double sum = 0;
  for (const double value : all) sum += value;
  return sum;
}

// The job that a user would write for these options.
absl::StatusOr<TrainingPlan> PlanOf(const BenchOptions& options, int64_t classes) {
  namespace v1 = shardmax::v1;
  v1::JobSpec spec;
  spec.set_name("head_bench");
  v1::Train& train = *spec.mutable_train();
  train.set_num_classes(static_cast<int32_t>(classes));
  train.set_dim(static_cast<int32_t>(options.dim));
  train.set_batch_size(static_cast<int32_t>(options.batch));
  train.set_steps(options.steps + kWarmUpSteps);
  train.mutable_dataset()->set_features("x.npy");
  train.mutable_dataset()->set_labels("y.npy");
  train.mutable_loss()->set_preset(options.preset);
  train.mutable_optimizer()->mutable_sgd()->set_momentum(0.9);
  train.mutable_optimizer()->mutable_sgd()->set_weight_decay(5e-4);
  train.mutable_optimizer()->set_state(options.state == StateType::kBfloat16 ? v1::BFLOAT16 : v1::FLOAT32);
  if (options.sample_rate < 1 && options.nearest) {
    v1::NearestSampling& nearest = *train.mutable_sampling()->mutable_nearest();
    nearest.set_rate(options.sample_rate);
    nearest.set_neighbours(static_cast<int32_t>(options.neighbours));
    nearest.set_rebuild_every_steps(1);
  } else if (options.sample_rate < 1) {
    train.mutable_sampling()->mutable_random()->set_rate(options.sample_rate);
  }
  train.mutable_schedule()->set_base_lr(0.01);
  train.set_precision(options.precision == Precision::kBfloat16 ? v1::BFLOAT16 : v1::FLOAT32);
  SHARDMAX_ASSIGN_OR_RETURN(const v1::JobSpec resolved, ResolveJobSpec(spec));
  return MakeTrainingPlan(resolved.train(), 1);
}

absl::StatusOr<EngineChoice> EngineOf(const Communicator& comm, EngineKind kind, const BenchOptions& options,
                                      int64_t classes, const std::vector<int>& processors) {
  SHARDMAX_ASSIGN_OR_RETURN(const TrainingPlan plan, PlanOf(options, classes));
  EngineOptions engine;
  SHARDMAX_ASSIGN_OR_RETURN(engine.shard, ShardOfRank(classes, comm.rank(), comm.size()));
  engine.dim = options.dim;
  engine.optimizer = plan.optimizer;
  if (kind == EngineKind::kCpu) engine.precision = options.precision;  // The other knows float64 alone.
  engine.threads = options.threads;
  engine.batch_rows = options.batch;
  engine.cosines = options.cosines;
  engine.tile_classes = options.tile_classes;
  engine.sample_rate = plan.sample_rate;
  if (options.pin_threads) engine.processors = processors;
  SHARDMAX_ASSIGN_OR_RETURN(EngineChoice choice, MakeEngine(kind, engine));
  SHARDMAX_RETURN_IF_ERROR(DrawWeights(*choice.engine, kSeed, kStddev));
  return choice;
}

// The rows of this rank of one batch.
struct Rows {
  std::vector<float> features;
  std::vector<int32_t> labels;

  StepInput Input(const BenchOptions& options, const TrainingPlan& plan, int64_t step, SkippedSteps& skipped,
                  const NeighbourGraph* graph) const {
    StepInput input;
    input.global_rows = options.batch;
    input.features = {features.data(), static_cast<int64_t>(labels.size()), options.dim};
    input.labels = labels;
    input.loss = plan.LossAt(step);
    input.rule = plan.RuleAt(step);
    if (plan.sample_rate < 1) {
      input.sampling = {
          .rate = plan.sample_rate, .seed = plan.seed, .step = step, .skipped = &skipped, .neighbours = graph};
    }
    return input;
  }
};

SkippedSteps SkippedOf(const TrainingPlan& plan) {
  return {plan.optimizer, [schedule = plan.schedule](int64_t step) { return schedule.At(step); }};
}

Rows DrawRows(const Communicator& comm, const BenchOptions& options, int64_t classes, uint32_t seed) {
  std::mt19937_64 random(seed * 1000 + static_cast<uint32_t>(comm.rank()));
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int32_t> label(0, static_cast<int32_t>(classes) - 1);
  Rows rows;
  const int64_t count = BalancedPart(options.batch, comm.rank(), comm.size()).count;
  rows.labels.resize(static_cast<size_t>(count));
  rows.features.resize(static_cast<size_t>(count * options.dim));
  for (int32_t& y : rows.labels) y = label(random);
  for (float& x : rows.features) x = normal(random);
  return rows;
}

// Moves three rows of four towards their label's weights, to cosines of 0.6 to 0.9 as they are where training has
// begun; the others stay unlearned. Thresholds then lie outside of the bulk of the cosines, as they do in training.
absl::Status PullToLabels(const BenchOptions& options, Engine& all_classes, Rows& rows) {
  std::vector<float> weights(static_cast<size_t>(options.dim));
  for (size_t b = 0; b < rows.labels.size(); ++b) {
    SHARDMAX_RETURN_IF_ERROR(all_classes.ReadRows("weight", {rows.labels[b], 1}, {weights.data(), 1, options.dim}));
    const float pull = kPulls[b % std::size(kPulls)] / static_cast<float>(kStddev);
    for (int64_t i = 0; i < options.dim; ++i) rows.features[b * options.dim + i] += pull * weights[i];
  }
  return absl::OkStatus();
}

double ProcessorSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

int64_t PeakResidentBytesOfProcess() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;
}

}  // namespace

absl::StatusOr<MachineLimits> MeasureLimits(Communicator& comm, ThreadPool& pool) {
  MachineLimits limits;
  SHARDMAX_RETURN_IF_ERROR(comm.Barrier());
  SHARDMAX_ASSIGN_OR_RETURN(limits.fma_gflops, SumOverRanks(comm, FmaGflops(pool)));
  const std::optional<double> dot = Bfloat16DotGflops(pool);
  SHARDMAX_ASSIGN_OR_RETURN(const double all_dot, SumOverRanks(comm, dot.value_or(std::nan(""))));
  if (!std::isnan(all_dot)) limits.bfloat16_dot_gflops = all_dot;
  SHARDMAX_ASSIGN_OR_RETURN(const double copy, CopyGigabytesPerSecond(pool, kCopyBytes));
  SHARDMAX_ASSIGN_OR_RETURN(limits.copy_gigabytes_per_second, SumOverRanks(comm, copy));
  return limits;
}

absl::StatusOr<double> FmaPeakAgain(Communicator& comm, ThreadPool& pool, double before) {
  SHARDMAX_RETURN_IF_ERROR(comm.Barrier());
  SHARDMAX_ASSIGN_OR_RETURN(const double now, SumOverRanks(comm, FmaGflops(pool)));
  return std::max(before, now);
}

// Builds the graph of nearest classes; the seconds on the slowest rank.
absl::StatusOr<double> TimeRebuild(Communicator& comm, const Engine& engine, const BenchOptions& options,
                                   int64_t classes, NeighbourGraph& graph) {
  SHARDMAX_ASSIGN_OR_RETURN(graph, NeighbourGraph::Allocate(engine.options().shard, classes, options.neighbours));
  SHARDMAX_RETURN_IF_ERROR(comm.Barrier());
  const Clock::time_point start = Clock::now();
  SHARDMAX_RETURN_IF_ERROR(BuildNeighbourGraph(comm, engine, graph));
  const double mine = std::chrono::duration<double>(Clock::now() - start).count();
  SHARDMAX_ASSIGN_OR_RETURN(const std::vector<double> all, Gather(comm, std::vector<double>{mine}));
  return *std::max_element(all.begin(), all.end());
}

absl::StatusOr<StepTimes> TimeSteps(Communicator& comm, const BenchOptions& options,
                                    const std::vector<int>& processors) {
  SHARDMAX_ASSIGN_OR_RETURN(const TrainingPlan plan, PlanOf(options, options.classes));
  SHARDMAX_ASSIGN_OR_RETURN(const EngineChoice choice,
                            EngineOf(comm, EngineKind::kCpu, options, options.classes, processors));
  ShardedHead head(comm, *choice.engine, options.classes);
  std::vector<Rows> batches;
  for (uint32_t i = 0; i < kBatches; ++i) batches.push_back(DrawRows(comm, options, options.classes, i));

  SkippedSteps skipped = SkippedOf(plan);
  StepTimes times = {.engine = choice.description};
  NeighbourGraph graph;
  if (plan.nearest.has_value()) {
    SHARDMAX_ASSIGN_OR_RETURN(times.rebuild_seconds,
                              TimeRebuild(comm, *choice.engine, options, options.classes, graph));
  }
  CommStats::Counter before;
  std::vector<double> mine;
  std::vector<double> my_processor;
  for (int step = 0; step < kWarmUpSteps + options.steps; ++step) {
    SHARDMAX_RETURN_IF_ERROR(comm.Barrier());
    if (step == kWarmUpSteps) before = comm.stats().Total();
    const double processor_start = ProcessorSeconds();
    const Clock::time_point start = Clock::now();
    const auto input_of = [&](int at) { return batches[at % kBatches].Input(options, plan, at, skipped, &graph); };
    const auto next = [&] { return input_of(step + 1); };
    SHARDMAX_ASSIGN_OR_RETURN(const StepResult result,
                              options.gather_ahead ? head.Step(input_of(step), next) : head.Step(input_of(step)));
    if (step < kWarmUpSteps) continue;
    mine.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    my_processor.push_back(ProcessorSeconds() - processor_start);
    times.phases.push_back(result.phase_seconds);
  }
  const CommStats::Counter after = comm.stats().Total();
  const double steps = options.steps;
  times.collectives =
      static_cast<double>(after.calls - before.calls - (options.steps - 1)) / steps;  // Less the barriers.
  times.collective_bytes = static_cast<double>(after.bytes - before.bytes) / steps;
  SHARDMAX_ASSIGN_OR_RETURN(const std::vector<double> all, Gather(comm, mine));
  SHARDMAX_ASSIGN_OR_RETURN(const std::vector<double> all_processor, Gather(comm, my_processor));
  times.processor_seconds.assign(mine.size(), 0);
  for (size_t i = 0; i < all_processor.size(); ++i) {
    times.processor_seconds[i % mine.size()] += all_processor[i] / (comm.size() * options.threads);
  }
  times.seconds = mine;
  for (size_t i = 0; i < all.size(); ++i) {
    double& slowest = times.seconds[i % mine.size()];
    slowest = std::max(slowest, all[i]);
  }
  return times;
}

absl::StatusOr<double> FeatureGradientError(Communicator& comm, const BenchOptions& options,
                                            const std::vector<int>& processors) {
  const int64_t classes = std::min(options.classes, options.check_classes);
  SHARDMAX_ASSIGN_OR_RETURN(const TrainingPlan plan, PlanOf(options, classes));
  EngineOptions whole = {.shard = {0, classes}, .dim = options.dim};
  SHARDMAX_ASSIGN_OR_RETURN(const EngineChoice all_classes, MakeEngine(EngineKind::kReference, whole));
  SHARDMAX_RETURN_IF_ERROR(DrawWeights(*all_classes.engine, kSeed, kStddev));
  Rows rows = DrawRows(comm, options, classes, kBatches);
  SHARDMAX_RETURN_IF_ERROR(PullToLabels(options, *all_classes.engine, rows));

  std::vector<std::vector<float>> gradients;
  for (const EngineKind kind : {EngineKind::kReference, EngineKind::kCpu}) {
    SHARDMAX_ASSIGN_OR_RETURN(const EngineChoice choice, EngineOf(comm, kind, options, classes, processors));
    ShardedHead head(comm, *choice.engine, classes);
    SkippedSteps skipped = SkippedOf(plan);
    NeighbourGraph graph;
    if (plan.nearest.has_value()) {
      SHARDMAX_RETURN_IF_ERROR(TimeRebuild(comm, *choice.engine, options, classes, graph).status());
    }
    SHARDMAX_ASSIGN_OR_RETURN(const StepResult result, head.Step(rows.Input(options, plan, 0, skipped, &graph)));
    gradients.emplace_back(result.feature_gradients.flat().begin(), result.feature_gradients.flat().end());
  }
  double largest = 0;
  double worst = 0;
  for (size_t i = 0; i < gradients[0].size(); ++i) {
    const auto expected = static_cast<double>(gradients[0][i]);
    largest = std::max(largest, std::abs(expected));
    const double error = std::abs(static_cast<double>(gradients[1][i]) - expected);
    worst = std::isfinite(error) ? std::max(worst, error) : HUGE_VAL;
  }
  SHARDMAX_ASSIGN_OR_RETURN(const auto all, Gather(comm, std::vector<double>{largest, worst}));
  for (size_t i = 0; i < all.size(); i += 2) {
    largest = std::max(largest, all[i]);
    worst = std::max(worst, all[i + 1]);
  }
  return worst / largest;
}

absl::StatusOr<int64_t> PeakResidentBytes(Communicator& comm) {
  SHARDMAX_ASSIGN_OR_RETURN(const double sum, SumOverRanks(comm, static_cast<double>(PeakResidentBytesOfProcess())));
  return static_cast<int64_t>(sum);
}

}  // namespace shardmax::bench
