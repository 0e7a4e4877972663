// A program of its own, as it counts every `new` of the process.
#include <dlfcn.h>
#include <gmock/gmock.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string_view>
#include <vector>

#include "tests/support/head_run.h"
#include "tests/support/sanitizers.h"

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

}  // namespace
}  // namespace shardmax
