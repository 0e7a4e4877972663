#include "worker/eval/gemm_peak.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "worker/base/aligned_buffer.h"
#include "worker/base/status.h"
#include "worker/base/thread_pool.h"
#include "worker/eval/exchange.h"
#include "worker/eval/tile_product.h"

namespace shardmax {
namespace {

constexpr int64_t kSize = 512;
constexpr int kRuns = 9;
constexpr int kProductsARun = 2;
// Some milliseconds of work, most of which is starting it.
constexpr double kLeastFlops = 1e9;

// What one thread multiplies.
struct Operands {
  TileProduct product;
  AlignedBuffer<std::byte> rows, packed;
  AlignedBuffer<float> scores;

  static absl::StatusOr<Operands> Make(Precision precision) {
    const TileShape shape = {kSize, kSize, kSize, precision};
    SHARDMAX_ASSIGN_OR_RETURN(TileProduct product, TileProduct::Make(shape));
    Operands operands = {.product = std::move(product)};
    SHARDMAX_ASSIGN_OR_RETURN(operands.rows, AlignedBuffer<std::byte>::Allocate(kSize * kSize * shape.item_bytes()));
    SHARDMAX_ASSIGN_OR_RETURN(operands.packed, AlignedBuffer<std::byte>::Allocate(operands.product.packed_bytes()));
    SHARDMAX_ASSIGN_OR_RETURN(operands.scores, AlignedBuffer<float>::Allocate(kSize * kSize));
    SHARDMAX_RETURN_IF_ERROR(operands.product.Pack(operands.rows.data(), operands.packed.data()));
    return operands;
  }
};

absl::StatusOr<double> MeasureHere(const EvaluationContext& context, Precision precision) {
  std::vector<Operands> operands;
  for (int thread = 0; thread < context.threads; ++thread) {
    SHARDMAX_ASSIGN_OR_RETURN(Operands of_thread, Operands::Make(precision));
    operands.push_back(std::move(of_thread));
  }
  ThreadPool pool(context.threads, context.processors);
  std::vector<absl::Status> statuses(operands.size());
  std::vector<double> seconds;
  // The first run warms up.
  for (int run = 0; run <= kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    pool.Run([&](int thread) {
      Operands& mine = operands[thread];
      for (int i = 0; i < kProductsARun && statuses[thread].ok(); ++i) {
        statuses[thread] = mine.product.Run(mine.rows.data(), mine.packed.data(), mine.scores.data());
      }
    });
    for (const absl::Status& status : statuses) SHARDMAX_RETURN_IF_ERROR(status);
    if (run > 0) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRuns / 2, seconds.end());
  return 2.0 * kSize * kSize * kSize * kProductsARun * context.threads / seconds[kRuns / 2];
}

}  // namespace

absl::StatusOr<double> MeasureGemmPeak(const EvaluationContext& context, Precision precision, double scan_flops) {
  if (scan_flops < kLeastFlops) return 0.0;
  // All at once, as they will be when they score.
  SHARDMAX_RETURN_IF_ERROR(context.comm.Barrier());
  const auto mine = MeasureHere(context, precision);
  SHARDMAX_RETURN_IF_ERROR(AgreeOk(context.comm, mine.status()));
  SHARDMAX_ASSIGN_OR_RETURN(const std::vector<double> all,
                            GatherParts(context.comm, std::span(&*mine, 1), context.comm.size()));
  return std::accumulate(all.begin(), all.end(), 0.0);
}

}  // namespace shardmax
