// The graph of nearest classes against brute force, which classes of it take part in a step, and what they miss.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <set>

#include "tests/support/head_run.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"
#include "worker/engine/cpu/score_search.h"
#include "worker/head/active_classes.h"
#include "worker/head/nearest_sets.h"
#include "worker/head/neighbour_scan.h"

namespace shardmax {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using Graph = std::vector<std::vector<int32_t>>;  // [C][k]

double Cosine(const HeadProblem& problem, int64_t a, int64_t b) {
  double dot = 0;
  double aa = 0;
  double bb = 0;
  for (int64_t i = 0; i < problem.dim; ++i) {
    const double x = problem.weights[a * problem.dim + i];
    const double y = problem.weights[b * problem.dim + i];
    dot += x * y;
    aa += x * x;
    bb += y * y;
  }
  return aa == 0 || bb == 0 ? 0 : dot / std::sqrt(aa * bb);
}

Graph BruteForce(const HeadProblem& problem, int64_t neighbours) {
  Graph graph;
  for (int64_t k = 0; k < problem.classes; ++k) {
    std::vector<std::pair<double, int32_t>> others;
    for (int64_t j = 0; j < problem.classes; ++j) {
      if (j != k) others.emplace_back(-Cosine(problem, k, j), static_cast<int32_t>(j));
    }
    std::ranges::sort(others);
    std::vector<int32_t>& nearest = graph.emplace_back();
    for (int64_t i = 0; i < neighbours; ++i) nearest.push_back(others[static_cast<size_t>(i)].second);
  }
  return graph;
}

// `graph` is that of brute force, but for neighbours that rounding alone tells apart.
void ExpectNearest(const HeadProblem& problem, const Graph& graph, int64_t neighbours) {
  const Graph exact = BruteForce(problem, neighbours);
  for (size_t k = 0; k < exact.size(); ++k) {
    ASSERT_EQ(graph[k].size(), static_cast<size_t>(neighbours));
    EXPECT_EQ(std::set<int32_t>(graph[k].begin(), graph[k].end()).size(), graph[k].size()) << "class " << k;
    for (size_t i = 0; i < exact[k].size(); ++i) {
      EXPECT_NE(graph[k][i], static_cast<int32_t>(k));
      EXPECT_NEAR(Cosine(problem, static_cast<int64_t>(k), graph[k][i]),
                  Cosine(problem, static_cast<int64_t>(k), exact[k][i]), 5e-7)
          << "class " << k << ", place " << i;
    }
  }
}

struct BuildOptions {
  HeadRunOptions head = {.engine = EngineKind::kCpu, .threads = 2};
  NeighbourScanLimits limits = {};
};

Graph Build(const HeadProblem& problem, int64_t neighbours, const BuildOptions& options) {
  Graph graph(static_cast<size_t>(problem.classes));
  SpawnRanks(options.head.ranks, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, comm.rank(), comm.size(), options.head));
    const Range shard = engine->options().shard;
    SHARDMAX_ASSIGN_OR_RETURN(NeighbourGraph mine, NeighbourGraph::Allocate(shard, problem.classes, neighbours));
    EXPECT_FALSE(mine.built());
    SHARDMAX_RETURN_IF_ERROR(BuildNeighbourGraph(comm, *engine, mine, options.limits));
    EXPECT_TRUE(mine.built());
    for (int64_t k = 0; k < shard.count; ++k) {
      graph[static_cast<size_t>(shard.first + k)].assign(mine.Of(k).begin(), mine.Of(k).end());
    }
    return absl::OkStatus();
  });
  return graph;
}

TEST(NeighbourGraph, IsThatOfBruteForceOnAnyNumberOfRanks) {
  for (const auto& [classes, dim, neighbours] : {std::array<int64_t, 3>{101, 12, 7}, {700, 33, 20}, {9, 4, 8}}) {
    const HeadProblem problem = MakeHeadProblem(5, 1, dim, classes);
    const Graph expected = Build(problem, neighbours, {});
    ExpectNearest(problem, expected, neighbours);
    for (const int ranks : {1, 2, 3, 5}) {
      for (const NeighbourScanLimits& limits : {NeighbourScanLimits(), NeighbourScanLimits{16, 32, 9}}) {
        BuildOptions options = {.limits = limits};
        options.head.ranks = ranks;
        EXPECT_EQ(Build(problem, neighbours, options), expected) << classes << " classes, " << ranks << " ranks";
      }
    }
  }
}

TEST(NeighbourGraph, IsExactWhereBfloat16TellsNoClassesApart) {
  HeadProblem problem = MakeHeadProblem(14, 1, 33, 300);
  for (size_t i = 0; i < problem.weights.size(); ++i) problem.weights[i] = 1 + 0.1F * problem.weights[i];
  const Graph expected = Build(problem, 10, {});
  ExpectNearest(problem, expected, 10);
  for (const int ranks : {2, 3}) {
    BuildOptions options = {.limits = {16, 32, 17}};
    options.head.ranks = ranks;
    options.head.threads = 3;
    EXPECT_EQ(Build(problem, 10, options), expected) << ranks << " ranks";
  }
}

// 1/sqrt(33) is rounded down in every place of every class, so products in bfloat16 are off by nearly all that the
// bound of their error allows.
TEST(NeighbourGraph, IsExactWhereEveryRoundingOfBfloat16GoesTheSameWay) {
  constexpr int64_t kDim = 33, kNeighbours = 12;
  HeadProblem problem = MakeHeadProblem(15, 1, kDim, 400);
  std::mt19937 random(15);
  for (float& weight : problem.weights) weight = random() % 10 == 0 ? -1.0F : 1.0F;
  const Graph expected = Build(problem, kNeighbours, {});
  // Cosines are whole numbers over 33 but for rounding, which decides where they are equal.
  std::vector<float> directions(problem.weights);
  for (float& x : directions) x *= static_cast<float>(1 / std::sqrt(static_cast<double>(kDim)));
  std::vector<int32_t> all(static_cast<size_t>(problem.classes));
  std::iota(all.begin(), all.end(), 0);
  std::vector<float> dots(all.size());
  for (int64_t k = 0; k < problem.classes; ++k) {
    DotRows(std::span<const float>(directions).subspan(static_cast<size_t>(k * kDim), kDim), directions.data(), all,
            dots.data());
    std::vector<int32_t> nearest(all);
    nearest.erase(nearest.begin() + k);
    std::ranges::stable_sort(nearest, [&](int32_t i, int32_t j) { return dots[i] > dots[j]; });
    nearest.resize(kNeighbours);
    EXPECT_EQ(expected[static_cast<size_t>(k)], nearest) << "class " << k << ", seed 15";
  }
  for (const int ranks : {2, 3}) {
    BuildOptions options = {.limits = {16, 32, 17}};
    options.head.ranks = ranks;
    EXPECT_EQ(Build(problem, kNeighbours, options), expected) << ranks << " ranks";
  }
}

TEST(NeighbourGraph, HasTiesInTheOrderOfIdsAndClassesWithoutDirection) {
  HeadProblem problem = MakeHeadProblem(6, 1, 8, 40);
  const auto row = [&](int64_t k) { return problem.weights.begin() + k * problem.dim; };
  for (const int64_t twin : {7, 21, 33}) std::copy_n(row(3), problem.dim, row(twin));
  std::fill_n(row(12), problem.dim, 0.0F);
  for (const int ranks : {1, 2, 3}) {
    BuildOptions options = {.limits = {8, 8, 5}};
    options.head.ranks = ranks;
    const Graph graph = Build(problem, 3, options);
    EXPECT_THAT(graph[21], ElementsAre(3, 7, 33)) << ranks << " ranks";
    EXPECT_THAT(graph[3], ElementsAre(7, 21, 33)) << ranks << " ranks";
    EXPECT_THAT(graph[12], ElementsAre(0, 1, 2)) << ranks << " ranks: all are as far";
  }
}

TEST(NeighbourGraph, OfBfloat16IsAlikeOnAnyNumberOfRanksAndNearThatOfFloat32) {
  const HeadProblem problem = MakeHeadProblem(7, 1, 32, 300);
  BuildOptions options;
  options.head.precision = Precision::kBfloat16;
  const Graph alone = Build(problem, 10, options);
  for (const int ranks : {2, 3}) {
    options.head.ranks = ranks;
    options.limits = {32, 64, 17};
    EXPECT_EQ(Build(problem, 10, options), alone) << ranks << " ranks";
  }
  const Graph exact = BruteForce(problem, 10);
  int64_t common = 0;
  for (size_t k = 0; k < exact.size(); ++k) {
    const std::set<int32_t> ids(exact[k].begin(), exact[k].end());
    common += std::ranges::count_if(alone[k], [&](int32_t id) { return ids.contains(id); });
  }
  EXPECT_GT(common, 2900) << "of 3000";
}

TEST(NeighbourGraph, HasNoMoreNeighboursThanThereAreOtherClasses) {
  const auto graph = NeighbourGraph::Allocate({0, 2}, 5, 64);
  ASSERT_TRUE(graph.ok());
  EXPECT_EQ(graph->neighbours(), 4);
}

TEST(NeighbourGraph, PassesItsIdsAsBitsAndTakesNoOthersThanClasses) {
  auto graph = NeighbourGraph::Allocate({10, 3}, 2'000'000'000, 2);
  ASSERT_TRUE(graph.ok());
  // The bits of the second would be those of a NaN.
  const std::vector<int32_t> ids = {0, 1'999'999'999, 5, 6, 7, 8};
  std::vector<float> bits(ids.size());
  std::memcpy(bits.data(), ids.data(), ids.size() * sizeof(float));
  EXPECT_EQ(graph->WriteBits({10, 3}, {bits.data(), 3, 2}), absl::OkStatus());
  EXPECT_THAT(graph->Of(0), ElementsAre(0, 1'999'999'999));
  const auto copy = graph->Copy();
  ASSERT_TRUE(copy.ok());
  std::vector<float> read(4);
  EXPECT_EQ(copy->ReadBits({11, 2}, {read.data(), 2, 2}), absl::OkStatus());
  EXPECT_EQ(std::memcmp(read.data(), ids.data() + 2, 16), 0);

  const std::vector<int32_t> wrong = {0, 2'000'000'000};
  std::memcpy(bits.data(), wrong.data(), 8);
  EXPECT_EQ(Message(graph->WriteBits({12, 1}, {bits.data(), 1, 2})),
            "a neighbour of class 12 is 2000000000: allowed is a class in [0, 2000000000)");
  EXPECT_TRUE(absl::IsInvalidArgument(graph->WriteBits({12, 2}, {bits.data(), 2, 2})));
  EXPECT_TRUE(absl::IsInvalidArgument(graph->ReadBits({10, 2}, {read.data(), 2, 3})));
}

TEST(NeighbourGraph, OfWeightsThatAreNotFiniteIsAnErrorOnEveryRank) {
  HeadProblem problem = MakeHeadProblem(8, 1, 8, 40);
  problem.weights[25 * 8 + 2] = std::nanf("");
  const HeadRunOptions options = {.engine = EngineKind::kCpu};
  SpawnRanks(3, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, comm.rank(), 3, options));
    SHARDMAX_ASSIGN_OR_RETURN(NeighbourGraph graph, NeighbourGraph::Allocate(engine->options().shard, 40, 4));
    const absl::Status status = BuildNeighbourGraph(comm, *engine, graph);
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_THAT(Message(status), HasSubstr("rank 1: the weights of class 25 are not finite"));
    EXPECT_FALSE(graph.built());
    return absl::OkStatus();
  });
}

TEST(NeighbourScanPlan, SendsEveryRowOnceAPanelAndAgreesTwice) {
  const HeadProblem problem = MakeHeadProblem(9, 1, 8, 101);
  const NeighbourScanLimits limits = {16, 16, 10};
  const NeighbourScanPlan plan = NeighbourScanPlan::Of(101, 8, 2, Precision::kFloat32, limits);
  EXPECT_EQ(plan.panels, 4) << "of 16 of the 51 classes of the larger shard";
  EXPECT_EQ(plan.rounds, 6);
  SpawnRanks(2, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, comm.rank(), 2, {}));
    SHARDMAX_ASSIGN_OR_RETURN(NeighbourGraph graph, NeighbourGraph::Allocate(engine->options().shard, 101, 5));
    SHARDMAX_RETURN_IF_ERROR(AgreeOk(comm, absl::OkStatus()));
    const CommStats::Counter agreement = comm.stats().Total();
    SHARDMAX_RETURN_IF_ERROR(BuildNeighbourGraph(comm, *engine, graph, limits));
    const int64_t agreements = 3 * agreement.bytes;
    EXPECT_EQ(comm.stats().Total().calls, plan.panels * plan.rounds + 3 * agreement.calls);
    EXPECT_EQ(comm.stats().Total().bytes,
              plan.panels * plan.rounds * (plan.block_rows * plan.row_bytes + 256) + agreements);
    return absl::OkStatus();
  });
}

TEST(NeighbourScanPlan, HasBoundedMemoryWhateverTheClasses) {
  for (const int64_t classes : {1'000, 1'000'000, 100'000'000}) {
    for (const int ranks : {1, 512}) {
      const NeighbourScanPlan plan = NeighbourScanPlan::Of(classes, 512, ranks, Precision::kFloat32);
      EXPECT_LE(plan.panel_rows * 512 * 6, 64 << 20);
      EXPECT_LE(std::max(plan.block_rows * ranks, plan.own_rows) * 512 * 4, 16 << 20);
      EXPECT_GE(plan.panels * plan.panel_rows, classes / ranks);
      EXPECT_GE(plan.rounds * plan.block_rows, ranks > 1 ? classes / ranks : 0);
      EXPECT_EQ(plan.panel_rows % plan.tile_rows + plan.own_rows % plan.tile_rows, 0);
    }
  }
}

TEST(NearestSets, KeepTheBestOfManyInAnyOrder) {
  std::mt19937 random(3);
  std::uniform_int_distribution<int> level(-20, 20);  // Many ties, and both zeros.
  for (const int64_t k : {1, 2, 5, 40}) {
    std::vector<int32_t> ids(static_cast<size_t>(3 * k));
    auto sets = NearestSets::Make({ids.data(), 3, k}, 2);
    ASSERT_TRUE(sets.ok());
    std::vector<std::pair<float, int32_t>> all;
    for (int32_t id = 0; id < 1000; ++id) {
      const int value = level(random);
      all.emplace_back(value == 0 && id % 2 == 0 ? 0.0F : -static_cast<float>(value) / 20, id);
    }
    std::ranges::shuffle(all, random);
    for (const auto& [negative, id] : all) sets->Offer(2, -negative, id);
    std::ranges::sort(all);
    std::vector<int32_t> expected;
    for (int64_t i = 0; i < k; ++i) expected.push_back(all[static_cast<size_t>(i)].second);
    std::array<float, 2> floors = {};
    sets->Floors(1, floors.data());
    EXPECT_THAT(floors, ElementsAre(-all[static_cast<size_t>(k - 1)].first, INFINITY)) << "k " << k;
    sets->Floors(0, floors.data());
    EXPECT_THAT(floors, ElementsAre(-INFINITY, -INFINITY)) << "k " << k;
    sets->Sort(2);
    EXPECT_EQ(std::vector<int32_t>(ids.end() - k, ids.end()), expected) << "k " << k;
  }
}

// The active classes of all ranks, global.
std::vector<int32_t> ChooseOnRanks(int ranks, const HeadProblem& problem, const std::vector<int32_t>& labels,
                                   int64_t neighbours, double rate) {
  std::vector<std::vector<int32_t>> parts(static_cast<size_t>(ranks));
  SpawnRanks(ranks, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine,
                              EngineOfRank(problem, comm.rank(), ranks, {.engine = EngineKind::kCpu}));
    const Range shard = engine->options().shard;
    SHARDMAX_ASSIGN_OR_RETURN(NeighbourGraph graph, NeighbourGraph::Allocate(shard, problem.classes, neighbours));
    SHARDMAX_RETURN_IF_ERROR(BuildNeighbourGraph(comm, *engine, graph));
    NeighbourLists lists;
    const CommStats::Counter before = comm.stats().Total();
    SHARDMAX_RETURN_IF_ERROR(lists.Gather(comm, graph, labels));
    EXPECT_EQ(comm.stats().Total().calls - before.calls, 1);
    int64_t most = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const Range owned = BalancedPart(problem.classes, rank, ranks);
      most =
          std::max<int64_t>(most, std::ranges::count_if(lists.labels(), [&](int32_t y) { return owned.contains(y); }));
    }
    EXPECT_EQ(comm.stats().Total().bytes - before.bytes, NeighbourLists::BlockBytes(most, neighbours));
    ActiveClasses active;
    for (const int64_t step : {4, 0}) {  // The second must not see what the first marked.
      active.ChooseNearest({.rate = rate, .seed = 3, .step = step}, shard, problem.classes, lists);
    }
    for (const int32_t k : active.local()) {
      parts[static_cast<size_t>(comm.rank())].push_back(static_cast<int32_t>(shard.first) + k);
    }
    return absl::OkStatus();
  });
  std::vector<int32_t> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

TEST(NearestClasses, TakePartWithTheirLabelsAlikeForAnyRanks) {
  const HeadProblem problem = MakeHeadProblem(10, 1, 16, 3000);
  const std::vector<int32_t> labels = {2999, 5, -1, 5, 1777};
  const Graph graph = BruteForce(problem, 20);
  const std::vector<int32_t> active = ChooseOnRanks(1, problem, labels, 20, 0.1);
  for (const int ranks : {2, 7}) EXPECT_EQ(ChooseOnRanks(ranks, problem, labels, 20, 0.1), active) << ranks << " ranks";
  for (const int32_t label : {5, 1777, 2999}) {
    EXPECT_TRUE(std::ranges::binary_search(active, label));
    for (const int32_t neighbour : graph[static_cast<size_t>(label)]) {
      EXPECT_TRUE(std::ranges::binary_search(active, neighbour)) << neighbour << " of " << label;
    }
  }
  EXPECT_NEAR(static_cast<double>(active.size()), 3 + 0.1 * 2997, 5 * std::sqrt(0.1 * 0.9 * 3000));
}

TEST(NearestClasses, LeaveOutTheFarthestWhereThereIsNoRoom) {
  const HeadProblem problem = MakeHeadProblem(11, 1, 16, 1000);
  const Graph graph = BruteForce(problem, 20);
  // Room for two neighbours of each of two labels, and for next to no other class.
  constexpr double kRate = 4.000001 / 998;
  std::set<int32_t> expected = {10, 700};
  for (const int32_t label : {10, 700})
    expected.insert(graph[static_cast<size_t>(label)].begin(), graph[static_cast<size_t>(label)].begin() + 2);
  ASSERT_EQ(expected.size(), 6u) << "choose other labels";
  for (const int ranks : {1, 3}) {
    const std::vector<int32_t> active = ChooseOnRanks(ranks, problem, {700, 10}, 20, kRate);
    EXPECT_EQ(std::set<int32_t>(active.begin(), active.end()), expected) << ranks << " ranks";
  }
}

// The share of the support vectors of the batch among all classes that takes part in step 0, in float64.
double ExpectedRecall(const HeadProblem& problem, const HeadRunOptions& options) {
  const DenseLossResult dense = DenseLoss({.m3 = options.loss.m3, .t = options.loss.t}, problem.Dense());
  const std::vector<int32_t> active = [&] {
    if (options.neighbours > 0)
      return ChooseOnRanks(1, problem, problem.labels, options.neighbours, options.sample_rate);
    ActiveClasses drawn;
    drawn.Choose({.rate = options.sample_rate, .seed = options.sample_seed}, {0, problem.classes}, problem.labels);
    return std::vector<int32_t>(drawn.local().begin(), drawn.local().end());
  }();
  double all = 0;
  double found = 0;
  for (int64_t b = 0; b < problem.rows; ++b) {
    for (int64_t k = 0; k < problem.classes; ++k) {
      if (!dense.support_vectors[static_cast<size_t>(b * problem.classes + k)]) continue;
      ++all;
      found += std::ranges::binary_search(active, static_cast<int32_t>(k)) ? 1 : 0;
    }
  }
  EXPECT_GT(all, 100);
  return found / all;
}

TEST(Recall, IsTheShareOfSupportVectorsThatTakesPart) {
  HeadProblem problem = MakeHeadProblem(12, 30, 16, 700);
  problem.labels[3] = -1;
  HeadRunOptions options = {.engine = EngineKind::kCpu,
                            .threads = 2,
                            .cosines = CosineStorage::kKeepFloat32,
                            .sample_rate = 0.2,
                            .measure_recall = true,
                            .loss = {.m3 = 0.2, .t = 1.2}};
  AvoidThresholds(options.loss, 1e-5, problem);
  options.sample_seed = 3;
  for (const int64_t neighbours : {0, 4}) {
    options.neighbours = neighbours;
    const double expected = ExpectedRecall(problem, options);
    for (const int ranks : {1, 3}) {
      options.ranks = ranks;
      const HeadOutcome outcome = RunHead({problem, problem}, options);
      ASSERT_TRUE(outcome.steps[0].support_vector_recall.has_value());
      EXPECT_DOUBLE_EQ(*outcome.steps[0].support_vector_recall, expected) << ranks << " ranks, " << neighbours;
      EXPECT_LE(*outcome.steps[1].support_vector_recall, 1);
    }
  }
  options.measure_recall = false;
  EXPECT_FALSE(RunHead({problem}, options).steps[0].support_vector_recall.has_value());
}

TEST(Recall, ChangesNoMoreThanRounding) {
  const HeadProblem problem = MakeHeadProblem(13, 12, 16, 300);
  HeadRunOptions options = {.engine = EngineKind::kCpu,
                            .ranks = 2,
                            .optimizer = {.weight_decay = 0.05, .momentum = 0.9},
                            .sample_rate = 0.2,
                            .neighbours = 5,
                            .loss = {.m3 = 0.2, .t = 1.2}};
  const std::vector<HeadProblem> batches(5, problem);
  const HeadOutcome without = RunHead(batches, options);
  options.measure_recall = true;
  const HeadOutcome with = RunHead(batches, options);
  EXPECT_NEAR(with.loss(), without.loss(), 1e-6 * without.loss());
  EXPECT_EQ(with.stats[0].Total().calls, without.stats[0].Total().calls + 5) << "one all-gather a step";
}

}  // namespace
}  // namespace shardmax
