// A program of its own: the peak of its memory is that of this test.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include "tests/support/head_run.h"
#include "tests/support/sanitizers.h"

#if defined(SHARDMAX_ASAN) || defined(SHARDMAX_TSAN)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

namespace shardmax {
namespace {

int64_t PeakBytes() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{1024} * usage.ru_maxrss;
}

TEST(CpuEngineMemory, HoldsNoMatrixOfAllLogits) {
  if (kSanitized) GTEST_SKIP() << "sanitizers shadow and quarantine memory: the peak is theirs";
  constexpr int64_t kRows = 256, kDim = 8, kClasses = 400'000;
  const HeadProblem problem = MakeHeadProblem(1, kRows, kDim, kClasses);
  HeadRunOptions options = {.engine = EngineKind::kCpu, .threads = 2, .loss = {.m3 = 0.35, .t = 1.2}};
  for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16}) {
    options.precision = precision;
    const int64_t before = PeakBytes();
    RunHead(problem, options);
    const int64_t growth = PeakBytes() - before;
    // Weights and momentum, here and as this test copies them out, are 64 MB of it.
    constexpr int64_t kLogitBytes = 4 * kRows * kClasses;
    EXPECT_LT(growth, kLogitBytes / 4) << "of logits of " << kLogitBytes;
  }
}

}  // namespace
}  // namespace shardmax
