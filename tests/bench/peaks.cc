#include "tests/bench/peaks.h"

#include <algorithm>
#include <cstring>
#include <ctime>
#include <vector>

#include "worker/base/aligned_buffer.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// Highway compiles the rest of this file once for each instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/peaks.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace shardmax::bench {
namespace HWY_NAMESPACE {  // NOLINT(modernize-concat-nested-namespaces): opened by macro.

namespace hn = hwy::HWY_NAMESPACE;

// `rounds` times twelve independent multiply-adds of whole vectors; returns how many operations that were. Twelve hide
// the latency of one on every processor of today.
double MultiplyAdds(int64_t rounds, float& sink) {
  const hn::ScalableTag<float> d;
  const auto x = hn::Set(d, 0.999F);
  const auto y = hn::Set(d, sink);
  // Each starts from its own value: a compiler makes one of equal ones.
  const auto own = [&](float i) HWY_ATTR { return hn::Set(d, sink + i); };
  auto a0 = own(0), a1 = own(1), a2 = own(2), a3 = own(3), a4 = own(4), a5 = own(5);
  auto a6 = own(6), a7 = own(7), a8 = own(8), a9 = own(9), a10 = own(10), a11 = own(11);
  for (int64_t i = 0; i < rounds; ++i) {
    a0 = hn::MulAdd(a0, x, y), a1 = hn::MulAdd(a1, x, y), a2 = hn::MulAdd(a2, x, y), a3 = hn::MulAdd(a3, x, y);
    a4 = hn::MulAdd(a4, x, y), a5 = hn::MulAdd(a5, x, y), a6 = hn::MulAdd(a6, x, y), a7 = hn::MulAdd(a7, x, y);
    a8 = hn::MulAdd(a8, x, y), a9 = hn::MulAdd(a9, x, y), a10 = hn::MulAdd(a10, x, y), a11 = hn::MulAdd(a11, x, y);
  }
  const auto low = hn::Add(hn::Add(hn::Add(a0, a1), hn::Add(a2, a3)), hn::Add(a4, a5));
  const auto high = hn::Add(hn::Add(hn::Add(a6, a7), hn::Add(a8, a9)), hn::Add(a10, a11));
  sink = hn::GetLane(hn::Add(low, high));
  return static_cast<double>(rounds) * 12 * 2 * static_cast<double>(hn::Lanes(d));
}

}  // namespace HWY_NAMESPACE
}  // namespace shardmax::bench
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardmax::bench {
namespace {

HWY_EXPORT(MultiplyAdds);

constexpr int kTries = 12;
constexpr int64_t kRounds = 2'000'000;  // About 10 ms.

double SecondsOf(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// The best of several timings of `work` on each thread, which returns the operations that it did, summed.
// `clock` is CLOCK_MONOTONIC, or for work that never waits CLOCK_THREAD_CPUTIME_ID: that of a busy machine is the same.
template <typename Work>
double SumOfBest(ThreadPool& pool, clockid_t clock, const Work& work) {
  std::vector<double> best(static_cast<size_t>(pool.threads()));
  for (int i = 0; i < kTries; ++i) {
    pool.Run([&](int thread) {
      const double start = SecondsOf(clock);
      const double operations = work(thread);
      best[thread] = std::max(best[thread], operations / (SecondsOf(clock) - start) / 1e9);
    });
  }
  double sum = 0;
  for (const double value : best) sum += value;
  return sum;
}

#if defined(__x86_64__)
// Highway of Debian 12 has no name for this instruction. The engine has its bfloat16 products from oneDNN.
__attribute__((target("avx512f,avx512bf16"))) double Bfloat16Dots(int64_t rounds, float& sink) {
  __m512 sums[12];
  for (int i = 0; i < 12; ++i) sums[i] = _mm512_set1_ps(sink + static_cast<float>(i));
  const auto x = reinterpret_cast<__m512bh>(_mm512_set1_ps(0.999F));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, x, x);
  }
  for (const __m512& sum : sums) sink += sum[0];
  return static_cast<double>(rounds) * 12 * 2 * 32;
}
#endif

}  // namespace

double FmaGflops(ThreadPool& pool) {
  std::vector<float> sinks(static_cast<size_t>(pool.threads()), 0.001F);
  return SumOfBest(pool, CLOCK_THREAD_CPUTIME_ID,
                   [&](int thread) { return HWY_DYNAMIC_DISPATCH(MultiplyAdds)(kRounds, sinks[thread]); });
}

std::optional<double> Bfloat16DotGflops(ThreadPool& pool) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx512bf16")) return std::nullopt;
  std::vector<float> sinks(static_cast<size_t>(pool.threads()), 0.001F);
  return SumOfBest(pool, CLOCK_THREAD_CPUTIME_ID, [&](int thread) { return Bfloat16Dots(kRounds, sinks[thread]); });
#else
  return std::nullopt;
#endif
}

absl::StatusOr<double> CopyGigabytesPerSecond(ThreadPool& pool, int64_t bytes) {
  const int64_t all = bytes * pool.threads();
  SHARDMAX_ASSIGN_OR_RETURN(auto from, AlignedBuffer<char>::Allocate(all));
  SHARDMAX_ASSIGN_OR_RETURN(auto to, AlignedBuffer<char>::Allocate(all));
  pool.Run([&](int thread) { std::memset(from.data() + thread * bytes, 1, static_cast<size_t>(bytes)); });
  return SumOfBest(pool, CLOCK_MONOTONIC, [&](int thread) {
    std::memcpy(to.data() + thread * bytes, from.data() + thread * bytes, static_cast<size_t>(bytes));
    return 2 * static_cast<double>(bytes);
  });
}

}  // namespace shardmax::bench
#endif  // HWY_ONCE
