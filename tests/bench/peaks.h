// What this machine can do at most, to set times beside.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "worker/base/thread_pool.h"

namespace shardmax::bench {

// All threads of `pool` at work together; the sum of what each reached at its best in several short tries.

// Float32 multiply-adds in registers, on the widest vectors of the processor; a multiply-add is two operations.
double FmaGflops(ThreadPool& pool);

// As FmaGflops for bfloat16 dot products with float32 sums. Nothing where the processor has no such instruction.
std::optional<double> Bfloat16DotGflops(ThreadPool& pool);

// A copy of `bytes` for each thread, more than its caches hold: bytes read and written, per second, in 10^9.
absl::StatusOr<double> CopyGigabytesPerSecond(ThreadPool& pool, int64_t bytes);

}  // namespace shardmax::bench
