// A program of its own, as it counts every `new` of the process.
#include <dlfcn.h>
#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <set>
#include <string_view>
#include <vector>

#include "tests/support/head_run.h"
#include "tests/support/sanitizers.h"
#include "tests/support/spawn_ranks.h"
#include "worker/base/status.h"
#include "worker/comm/thread_comm.h"
#include "worker/head/active_classes.h"
#include "worker/head/neighbour_scan.h"

namespace {

#if defined(SHARDMAX_ASAN) || defined(SHARDMAX_TSAN)
constexpr bool kCounts = false;
#else
constexpr bool kCounts = true;
#endif
std::atomic<bool> counting = false;
std::atomic<int64_t> allocations = 0;

}  // namespace

// Sanitizers have these for themselves.
#if !defined(SHARDMAX_ASAN) && !defined(SHARDMAX_TSAN)
namespace {

// oneDNN makes a small table of arguments for each product and drops it after. That is its own affair.
bool FromOneDnn(void* caller) {
  Dl_info info;
  return dladdr(caller, &info) != 0 && info.dli_fname != nullptr &&
         std::string_view(info.dli_fname).find("libdnnl") != std::string_view::npos;
}

void* Allocate(std::size_t size, void* caller) {
  if (counting && !FromOneDnn(caller)) ++allocations;
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t size) {
  return Allocate(size, __builtin_return_address(0));
}
void* operator new[](std::size_t size) {
  return Allocate(size, __builtin_return_address(0));
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  std::free(memory);
}
#endif

namespace shardmax {
namespace {

// The phases of a step, as the head calls them.
absl::Status Step(Engine& engine, const EngineBatch& batch, RowOutcomes& rows, std::vector<float>& cosines,
                  std::vector<ShardPartial>& partials, MatrixView<float> feature_gradients, bool count) {
  const LossParams loss = {.m3 = 0.35, .t = 1.2};
  counting = count;
  engine.LabelCosines(batch, cosines);
  counting = false;
  absl::Status status = rows.SetLabelCosines(loss, batch.labels, cosines);
  if (!status.ok()) return status;
  counting = count;
  status = engine.Score(batch, ScaleOf(loss), rows.thresholds(), partials);
  counting = false;
  if (!status.ok()) return status;
  status = rows.SetPartials(loss, {std::span<const ShardPartial>(partials)});
  if (!status.ok()) return status;
  const UpdateRule rule = UpdateRule::At(engine.options().optimizer, 0.01, 0);
  counting = count;
  status = engine.Backward(batch, ScaleOf(loss), rows.gradients(), rule, feature_gradients);
  counting = false;
  return status;
}

TEST(CpuEngine, AllocatesNothingInAStepAfterTheFirstTwo) {
  if (!kCounts) GTEST_SKIP() << "sanitizers allocate for themselves";
  const HeadProblem problem = MakeHeadProblem(1, 40, 64, 1500);
  for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16}) {
    for (const CosineStorage cosines :
         {CosineStorage::kRecompute, CosineStorage::kKeepInt16, CosineStorage::kKeepFloat32}) {
      HeadRunOptions options = {.engine = EngineKind::kCpu, .threads = 2, .precision = precision, .cosines = cosines};
      auto engine = EngineOfRank(problem, 0, 1, options);
      ASSERT_TRUE(engine.ok()) << engine.status();
      std::vector<float> features(problem.features);
      for (float& x : features) x /= 8;  // Lengths do not matter here.
      const EngineBatch batch = {.features = {features.data(), problem.rows, problem.dim}, .labels = problem.labels};
      std::vector<float> label_cosines(problem.rows), gradients(features.size());
      std::vector<ShardPartial> partials(problem.rows);
      RowOutcomes rows;
      allocations = 0;
      for (int step = 0; step < 5; ++step) {
        ASSERT_TRUE(Step(**engine, batch, rows, label_cosines, partials, {gradients.data(), problem.rows, problem.dim},
                         step >= 2)
                        .ok());
      }
      EXPECT_EQ(allocations, 0) << "precision " << static_cast<int>(precision) << ", cosines "
                                << static_cast<int>(cosines);
    }
  }
}

enum class Sampling { kRandom, kNearest };

// Steps of the engine, each with its own rows and classes; the allocations of those after the first two.
absl::StatusOr<int64_t> AllocationsOfSampledSteps(Sampling kind, const HeadRunOptions& options) {
  constexpr int64_t kRows = 40, kClasses = 1500, kNeighbours = 8;
  const auto comm = MakeThreadGroup(1, std::chrono::seconds(60));
  const HeadProblem first = MakeHeadProblem(1, kRows, 64, kClasses);
  SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(first, 0, 1, options));
  SHARDMAX_ASSIGN_OR_RETURN(NeighbourGraph graph, NeighbourGraph::Allocate({0, kClasses}, kClasses, kNeighbours));
  SHARDMAX_RETURN_IF_ERROR(BuildNeighbourGraph(*comm[0], *engine, graph));
  SkippedSteps skipped(options.optimizer, [](int64_t) { return 0.01; });
  NeighbourLists lists;
  ActiveClasses active;
  RowOutcomes rows;
  std::vector<float> label_cosines(kRows), gradients(first.features.size());
  std::vector<ShardPartial> partials(kRows);
  std::set<size_t> sizes;
  allocations = 0;
  for (int64_t step = 0; step < 30; ++step) {
    const HeadProblem problem = MakeHeadProblem(static_cast<uint32_t>(step + 1), kRows, 64, kClasses);
    const StepSampling sampling = {.rate = options.sample_rate, .seed = 1, .step = step, .skipped = &skipped};
    SHARDMAX_RETURN_IF_ERROR(lists.Gather(*comm[0], graph, problem.labels));
    counting = step >= 2;
    if (kind == Sampling::kNearest) {
      active.ChooseNearest(sampling, {0, kClasses}, kClasses, lists);
    } else {
      active.Choose(sampling, {0, kClasses}, problem.labels);
    }
    counting = false;
    sizes.insert(active.local().size());
    skipped.MoveTo(step);
    SHARDMAX_RETURN_IF_ERROR(engine->CatchUp(active.local(), skipped));
    const EngineBatch batch = {
        .features = {problem.features.data(), kRows, problem.dim}, .labels = problem.labels, .active = active.local()};
    SHARDMAX_RETURN_IF_ERROR(
        Step(*engine, batch, rows, label_cosines, partials, {gradients.data(), kRows, problem.dim}, step >= 2));
  }
  EXPECT_GT(sizes.size(), 10U) << "another number of classes in nearly every step";
  return allocations;
}

// The number of active classes is another in each step, and with it the last tile.
TEST(CpuEngine, AllocatesNothingInASampledStepAfterTheFirstTwo) {
  if (!kCounts) GTEST_SKIP() << "sanitizers allocate for themselves";
  for (const Sampling kind : {Sampling::kRandom, Sampling::kNearest}) {
    for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16}) {
      for (const CosineStorage cosines : {CosineStorage::kRecompute, CosineStorage::kKeepFloat32}) {
        const HeadRunOptions options = {
            .engine = EngineKind::kCpu, .threads = 2, .precision = precision, .cosines = cosines, .sample_rate = 0.4};
        const auto allocated = AllocationsOfSampledSteps(kind, options);
        ASSERT_TRUE(allocated.ok()) << allocated.status();
        EXPECT_EQ(*allocated, 0) << "sampling " << static_cast<int>(kind) << ", precision "
                                 << static_cast<int>(precision) << ", cosines " << static_cast<int>(cosines);
      }
    }
  }
}

// The whole step: what it exchanges, and losses and gradients of the rows, too.
int64_t AllocationsOfHeadSteps(int ranks, const HeadRunOptions& options, bool gather_ahead) {
  const HeadProblem problem = MakeHeadProblem(1, 40, 64, 1500);
  SpawnRanks(ranks, [&](Communicator& comm) -> absl::Status {
    SHARDMAX_ASSIGN_OR_RETURN(const auto engine, EngineOfRank(problem, comm.rank(), ranks, options));
    ShardedHead head(comm, *engine, problem.classes);
    const StepInput input = InputOfRank(problem, comm.rank(), ranks, options);
    const auto next = [&] { return input; };
    for (int step = 0; step < 6; ++step) {
      if (step == 2) {
        SHARDMAX_RETURN_IF_ERROR(comm.Barrier());
        if (comm.rank() == 0) allocations = 0;
        if (comm.rank() == 0) counting = true;
        SHARDMAX_RETURN_IF_ERROR(comm.Barrier());
      }
      SHARDMAX_RETURN_IF_ERROR((gather_ahead ? head.Step(input, next) : head.Step(input)).status());
    }
    SHARDMAX_RETURN_IF_ERROR(comm.Barrier());
    counting = false;
    return comm.Barrier();
  });
  return allocations;
}

TEST(ShardedHead, AllocatesNothingInAStepAfterTheFirstTwo) {
  if (!kCounts) GTEST_SKIP() << "sanitizers allocate for themselves";
  for (const int ranks : {1, 2}) {
    for (const bool gather_ahead : {false, true}) {
      for (const bool with_feature_gradients : {false, true}) {
        for (const double keep : {1.0, 0.7}) {
          const HeadRunOptions options = {.engine = EngineKind::kCpu,
                                          .threads = 2,
                                          .loss = {.m3 = 0.35, .t = 1.2, .keep = keep},
                                          .want_feature_gradients = with_feature_gradients};
          EXPECT_EQ(AllocationsOfHeadSteps(ranks, options, gather_ahead), 0)
              << ranks << " ranks, gathered ahead " << gather_ahead << ", feature gradients " << with_feature_gradients
              << ", kept rows " << keep;
        }
      }
    }
  }
}

}  // namespace
}  // namespace shardmax
